"""What all measurements share: repeats and medians, memory, the machine, videos, random models."""

import contextlib
import ctypes
import os
import platform
import re
import resource
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import detectron2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn
from tqdm import tqdm

from a2d_d2.utils.parallel import default_workers

FRAMES_PER_SECOND = 25.0  # of generated videos
MIB = 2**20

Clock = Callable[[], float]

# ---------------------------------------------------------------- time


def seconds_of(function: Callable, clock: Clock = time.perf_counter) -> float:
    """How long a call takes, with all that it started on a GPU."""
    synchronize()
    start = clock()
    function()
    synchronize()
    return clock() - start


def median_seconds(function: Callable, repeats: int) -> float:
    """The median time of ``repeats`` calls after one to warm up."""
    return statistics.median([seconds_of(function) for _ in range(repeats + 1)][1:])


def synchronize() -> None:
    """Waits for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def interleave(
    ways: Mapping[Hashable, Callable[[], float]],
    repeats: int,
    *,
    description: str,
    progress: bool = True,
) -> dict[Hashable, list[float]]:
    """Measures several ways in turns, so that a slow phase of the machine hits all of them alike.

    Every second repeat goes through them backwards: what drifts hits none more than another.

    Args:
        ways: name to a function that gives its seconds.
        repeats: how often each is called.
        description, progress: of the progress bar on standard error.

    Returns:
        Name to the seconds of each repeat.
    """
    seconds = {name: [] for name in ways}
    total = repeats * len(ways)
    with tqdm(total=total, desc=description, unit="run", disable=not progress) as bar:
        for repeat in range(repeats):
            for name in list(ways)[:: -1 if repeat % 2 else 1]:
                seconds[name].append(ways[name]())
                bar.update()
    return seconds


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """The median of the ratios of two ways, each within one repeat."""
    return statistics.median(x / y for x, y in zip(numerator, denominator, strict=True))


# ---------------------------------------------------------------- memory


def peak_bytes() -> int:
    """The largest resident memory that this process had so far."""
    # Not getrusage: on Linux its figure starts from that of the process that started this one.
    if (found := _status_bytes("VmHWM")) is not None:
        return found
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident_bytes() -> int:
    """The resident memory of this process now; on other systems than Linux its peak."""
    found = _status_bytes("VmRSS")
    return peak_bytes() if found is None else found


def _status_bytes(name: str) -> int | None:
    """A figure of Linux about this process; None on another system."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    found = re.search(rf"^{name}:\s+(\d+) kB$", status.read_text(), flags=re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def reset_peaks() -> None:
    """Starts :func:`peak_bytes` (on Linux) and :func:`peak_gpu_bytes` anew, from what is held now.

    What was freed goes back to the system first, so that it does not serve what comes next unseen.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError, AttributeError):  # another system, or another C library
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def kept_bytes(function: Callable, model: nn.Module) -> int:
    """What autograd keeps for the backward pass of a call, the model's parameters left out."""
    sizes = {}

    def note(x: torch.Tensor) -> torch.Tensor:
        sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        held = function()  # the graph, without which memory would be used again
    for parameter in model.parameters():
        sizes.pop(parameter.untyped_storage().data_ptr(), None)
    del held
    return sum(sizes.values())


def processor_seconds(process: int) -> float:
    """Seconds that a process has kept a core busy so far (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_gpu_bytes() -> int | None:
    """The largest memory of tensors on the GPU so far; None without a GPU."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


# ---------------------------------------------------------------- the machine


def machine() -> dict:
    """The hardware that computes, its threads, and the versions of what computes on it."""
    processor = _processor()
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else processor,
        "processor": processor,
        "cores": default_workers(),
        "threads": torch.get_num_threads(),
        "opencv_threads": cv2.getNumThreads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "detectron2": detectron2.__version__,
        "opencv": cv2.__version__,
        "numpy": np.__version__,
    }


def _processor() -> str:
    """The model's name; where the system does not say it, the architecture."""
    described = Path("/proc/cpuinfo")
    text = described.read_text() if described.exists() else ""
    found = re.search(r"^model name\s*:\s*(.*\S)", text, flags=re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def machine_line(machine: Mapping) -> str:
    """:func:`machine` in a line."""
    # Older results lack the processor.
    hardware = dict.fromkeys((machine["device"], machine.get("processor", machine["device"])))
    return (
        f"{', '.join(hardware)}, {machine['cores']} cores, {machine['threads']} threads; torch "
        f"{machine['torch']}, Detectron2 {machine['detectron2']}, OpenCV {machine['opencv']}"
    )


# ---------------------------------------------------------------- videos and models


def moving_frames(height: int, width: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Endless frames of blurred noise that moves by two pixels to the right and one down.

    Each is BGR uint8 (height, width, 3).
    """
    random = np.random.default_rng(seed)
    pattern = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    pattern = cv2.GaussianBlur(pattern, (0, 0), 2, borderType=cv2.BORDER_REFLECT_101)
    pattern = cv2.normalize(pattern, None, 0, 255, cv2.NORM_MINMAX)
    index = 0
    while True:
        yield np.roll(pattern, (index, 2 * index), axis=(0, 1))
        index += 1


def random_model(cfg: CfgNode) -> nn.Module:
    """A model in evaluation mode with random weights, the same each time, that stay finite."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(cfg)
    shrink_residuals(model)
    return model.eval()


def shrink_residuals(model: nn.Module) -> None:
    """Keeps the activations of random weights small.

    Without trained normalisation a hundred random layers overflow.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("conv3.weight"):
                parameter *= 0.1


def mask_rcnn_cfg(cfg: CfgNode) -> CfgNode:
    """Detectron2's Mask R-CNN on single frames with the backbone, RPN and heads of ``cfg``."""
    baseline = cfg.clone()
    options = {
        "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
        "MODEL.ROI_HEADS.NAME": "CanonicalROIHeads",
        "MODEL.MASK_ON": True,
    }
    baseline.merge_from_list([x for pair in options.items() for x in pair])
    return baseline


def check_counts(**counts: int) -> None:
    """ValueError when a number that must be at least 1 is less; names its option."""
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")


def set_threads(threads: int) -> None:
    """Sets the threads of the network's operators; OpenCV keeps its own.

    Raises:
        ValueError: there are to be none.
    """
    check_counts(threads=threads)
    torch.set_num_threads(threads)
