"""How the time and memory of a training step and of inference grow with the size of the work.

Training and inference at each point run in a process of their own, whose peak of memory is theirs.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tabulate import tabulate
from tqdm import tqdm

from a2d_d2.benchmark.clips import check_takes_clips
from a2d_d2.benchmark.common import (
    MIB,
    check_counts,
    interleave,
    machine,
    machine_line,
    peak_bytes,
    peak_gpu_bytes,
    random_model,
    reset_peaks,
    resident_bytes,
    seconds_of,
    set_threads,
)
from a2d_d2.benchmark.memory import in_new_process
from a2d_d2.benchmark.train import NEEDED, TrainingParts
from a2d_d2.config import setup_cfg
from a2d_d2.engine.measure import random_clip
from a2d_d2.utils.files import atomic_path


@dataclass(frozen=True)
class Work:
    """The size of a training step, and of inference on as many frames as a batch has clips.

    Attributes:
        window: T, frames of a clip, all of them in the receptive field of its annotated frame:
            (T - 1) / 2 temporal layers look at them.
        height, width: of the frames that the network sees, in pixels.
        clips: in a batch, with one annotated frame each.
        actors: on an annotated frame: true ones in training, detections at inference.
    """

    window: int = 3
    height: int = 96
    width: int = 128
    clips: int = 2
    actors: int = 4

    def options(self) -> list[str]:
        """KEY VALUE pairs."""
        values = {
            "INPUT.CLIP.LENGTH": self.window,
            "MODEL.TEMPORAL.NUM_LAYERS": self.window // 2,
            "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,  # random scores are low
            "TEST.DETECTIONS_PER_IMAGE": self.actors,
        }
        return [str(x) for pair in values.items() for x in pair]


@dataclass(frozen=True)
class Axis:
    """One way in which work grows.

    Attributes:
        name: as in the results.
        title: what it is.
        sizes: what the fit is over, ascending.
        work: size to the fields of :class:`Work` that differ.
    """

    name: str
    title: str
    sizes: tuple[int, ...]
    work: Callable[[int], dict]


AXES = (
    Axis("window", "frames of a clip, T", (3, 5, 9, 17), lambda n: {"window": n}),
    Axis(
        "pixels",
        "pixels of a frame",
        tuple(96 * n * 128 * n for n in (1, 2, 3, 4)),
        lambda n: {"height": round((n * 3 / 4) ** 0.5), "width": round((n * 4 / 3) ** 0.5)},
    ),
    Axis("clips", "clips in a batch", (1, 2, 4, 8), lambda n: {"clips": n}),
    Axis("actors", "actors on a frame", (1, 4, 16, 64), lambda n: {"actors": n}),
)
MOST_GROWTH = 1.1  # the goal: the exponent of a power law; 1 is a straight line
STAGES = {"step": "training step", **NEEDED, "inference": "inference"}
MEMORY = {"training_mib": "memory of training", "inference_mib": "memory of inference"}


@dataclass(frozen=True)
class ScalePoint:
    """The measurement of one size, of training or of inference, in one process.

    Attributes:
        training: what to measure.
        config_file, options: of the model, which gets random weights.
        work: its size.
        repeats: times are the least of these, after one to warm up.
        threads: of the network.
    """

    training: bool
    config_file: str
    options: tuple[str, ...]
    work: Work
    repeats: int
    threads: int

    def __call__(self) -> dict:
        """Seconds by the names of STAGES, and MiB by those of MEMORY.

        Memory is the peak (of the GPU, where there is one) less what was taken before the step: the
        library, the model and, in training, its optimiser are not in it.
        """
        set_threads(self.threads)
        work = self.work
        cfg = setup_cfg(self.config_file, [*self.options, *work.options()])
        model = random_model(cfg)
        clips = [
            random_clip(cfg, work.height, work.width, seed, instances=work.actors)
            for seed in range(work.clips)
        ]
        reset_peaks()
        before = _taken()
        if self.training:
            title, ways = "training_mib", TrainingParts(model.train(), cfg, clips).ways()
            first = {"step": ways["step"]}
            ways = {name: way for name, way in ways.items() if name in STAGES}
        else:
            title = "inference_mib"
            inputs = [{key: x for key, x in clip.items() if key != "instances"} for clip in clips]
            first = ways = {"inference": lambda: seconds_of(lambda: model(inputs))}
        with torch.set_grad_enabled(self.training):
            interleave(first, 1, description="", progress=False)
            memory = {title: (_peak() - before) / MIB}
            interleave(ways, 1, description="", progress=False)
            seconds = interleave(ways, self.repeats, description="", progress=False)
        return {name: min(values) for name, values in seconds.items()} | memory


def _taken() -> int:
    return resident_bytes() if peak_gpu_bytes() is None else torch.cuda.memory_allocated()


def _peak() -> int:
    gpu = peak_gpu_bytes()
    return peak_bytes() if gpu is None else gpu


def measure_scale(
    config_file: str,
    options: Sequence[str],
    *,
    repeats: int,
    threads: int,
    points: int = 4,
    plot: str | os.PathLike | None = None,
    progress: bool = True,
) -> dict:
    """Measures how a training step and inference grow along AXES.

    Args:
        config_file, options: of the model; no weights are loaded.
        repeats: of each point; times are the least.
        threads: of the network.
        points: measured on each axis, the smallest of its sizes.
        plot: a PNG file that gets a picture of the results; None makes none.
        progress: shows a progress bar.

    Returns:
        "machine"; "axes": name to "sizes" and "figures", stage or memory to a figure a size; and
        :func:`fit` of these, "growth".

    Raises:
        ValueError: a number is out of range, or the configuration is wrong or not of a model of
            clips.
        OSError: a process died, most likely out of memory.
    """
    check_counts(repeats=repeats, points=points)
    if points < 2:
        raise ValueError(f"--points is {points}; a fit needs at least 2")
    check_takes_clips(setup_cfg(config_file, [*options, *Work().options()]))
    axes = {}
    with tqdm(total=points * len(AXES), desc="sizes", disable=not progress) as bar:
        for axis in AXES:
            measured = []
            for size in axis.sizes[:points]:
                work = Work(**axis.work(size))
                common = (config_file, tuple(options), work, repeats, threads)
                inference, training = (
                    in_new_process(ScalePoint(training, *common)) for training in (False, True)
                )
                measured.append(inference | training)
                bar.update()
            axes[axis.name] = {
                "sizes": list(axis.sizes[:points]),
                "figures": {name: [m[name] for m in measured] for name in measured[0]},
            }
    result = {"machine": machine(), "repeats": repeats, "axes": axes, "growth": fit(axes)}
    if plot is not None:
        draw(result, plot)
    return result


def fit(axes: Mapping[str, Mapping]) -> dict:
    """Power laws of what was measured, by least squares on logarithms.

    A constant cost makes the exponent over all sizes small; that of the last two sizes shows
    growth that comes late.

    Args:
        axes: name to "sizes" and "figures" as :func:`measure_scale` gives them.

    Returns:
        Axis to stage or memory to the "exponent" over all sizes, that of the "last" two, and for a
        stage's time "met": whether neither is above MOST_GROWTH. A figure of memory that is not
        positive (less than was free before) has none.
    """
    growth = {}
    for axis, measured in axes.items():
        sizes = np.log(measured["sizes"])
        growth[axis] = {}
        for name, values in measured["figures"].items():
            if min(values) <= 0:
                continue
            logs = np.log(values)
            exponent = float(np.polyfit(sizes, logs, 1)[0])
            last = float((logs[-1] - logs[-2]) / (sizes[-1] - sizes[-2]))
            growth[axis][name] = {"exponent": exponent, "last": last}
            if name in STAGES:
                growth[axis][name]["met"] = max(exponent, last) <= MOST_GROWTH
    return growth


def scale_lines(result: Mapping) -> list[str]:
    """The result of :func:`measure_scale` for a person to read."""
    lines = [
        machine_line(result["machine"]),
        f"the least of {result['repeats']}; growth is the exponent of a power law over all sizes, "
        f"and over the last two (goal: at most {MOST_GROWTH:g})",
    ]
    for axis in AXES:
        measured, growth = result["axes"][axis.name], result["growth"][axis.name]
        rows = []
        for name, title in (STAGES | MEMORY).items():
            if name not in measured["figures"]:
                continue
            factor, unit = (1, "MiB") if name in MEMORY else (1000, "ms")
            figures = [f"{factor * value:.0f} {unit}" for value in measured["figures"][name]]
            fitted = growth.get(name, {})
            exponents = [f"{fitted[key]:.2f}" if fitted else "" for key in ("exponent", "last")]
            verdict = {True: "met", False: "missed", None: ""}[fitted.get("met")]
            rows.append([title, *figures, *exponents, verdict])
        headers = [axis.title, *map(str, measured["sizes"]), "growth", "last", ""]
        table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
        lines += ["", *table.splitlines()]
    return lines


def draw(result: Mapping, path: str | os.PathLike) -> None:
    """Draws time and memory against size, one column an axis, on logarithmic scales, as a PNG."""
    from matplotlib.figure import Figure  # half a second that other measurements need not pay

    figure = Figure(figsize=(4 * len(AXES), 7), layout="constrained")
    panels = figure.subplots(2, len(AXES), squeeze=False)
    for column, axis in zip(panels.T, AXES, strict=True):
        measured = result["axes"][axis.name]
        for panel, names, factor in ((column[0], STAGES, 1000), (column[1], MEMORY, 1)):
            for name, title in names.items():
                values = measured["figures"].get(name)
                if values is not None and min(values) > 0:
                    panel.loglog(measured["sizes"], [factor * x for x in values], "o-", label=title)
            panel.set_xticks(measured["sizes"], [str(size) for size in measured["sizes"]])
            panel.minorticks_off()
            panel.grid(alpha=0.3)
        column[1].set_xlabel(axis.title)
    for panel, label in ((panels[0, 0], "milliseconds"), (panels[1, 0], "MiB beside the model")):
        panel.set_ylabel(label)
    for panel, place in ((panels[0, 0], "upper"), (panels[1, 0], "lower")):
        figure.legend(*panel.get_legend_handles_labels(), loc=f"outside {place} center", ncols=6)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
