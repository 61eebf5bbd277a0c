"""The network as two TorchScript programs, which need neither this package nor Detectron2.

``features.pt`` makes the pyramids of frames, so that a stream computes each frame once.
``detect.pt`` aggregates the pyramids of a window over time and detects on its key frame. Both are
traced with Detectron2's TracingAdapter: the sizes of frames and the settings of the config are
fixed, the number of frames, of detections and the values are not.

    features = torch.jit.load("features.pt")(images, flow)       # a tuple, "features" names it
    detections = torch.jit.load("detect.pt")(*features, neighbours)     # likewise, "detections"

``images`` are uint8 (F, 3, h, w) BGR and ``flow`` float32 (F, 3, h, w), x, y and magnitude in
pixels per frame, left out without the flow stream: frames and flow resized to ``input_size`` as
Detectron2 does it. ``neighbours`` is int64 (1, V): positions in F of the frames around the key
frame, itself in the middle, -1 where there is none. What is given in another shape or type, or
points outside F, is refused with an error. Detections are in pixels of ``frame_size``.
torchvision must be imported before a program is loaded, since it has NMS and RoIAlign.

torch.export, which PyTorch prefers to TorchScript, takes the first program but refuses the second:
Detectron2 branches there on what it has computed (``find_top_rpn_proposals``).

Dimensions: F frames, V frames around a key frame, itself included, h and w of the network's input.
"""

import contextlib
import copy
import functools
import os
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.export import TracingAdapter
from detectron2.export.torchscript_patch import patch_builtin_len
from detectron2.modeling import build_model, detector_postprocess
from detectron2.structures import ImageList
from torch import Tensor, nn

from a2d_d2.data.transforms import build_augmentations
from a2d_d2.modeling.classes import model_label_space
from a2d_d2.modeling.meta_arch import ActorActionRCNN, FrameFeatures
from a2d_d2.modeling.start_weights import load_trained_weights
from a2d_d2.modeling.system import takes_clips
from a2d_d2.modeling.temporal import temporal_radius
from a2d_d2.utils.files import atomic_stream, write_json

# Only ``features.pt`` has these parts of the network; all others are in ``detect.pt`` alone.
BACKBONES = ("backbone", "flow_backbone")


@dataclass(frozen=True)
class Programs:
    """The traced network.

    Attributes:
        features, detect: the programs.
        feature_names: of the outputs of ``features``, "appearance.p2" and so on.
        detection_names: of the outputs of ``detect``, the fields of the model's Instances.
    """

    features: torch.jit.ScriptModule
    detect: torch.jit.ScriptModule
    feature_names: list[str]
    detection_names: list[str]


def export_model(cfg: CfgNode, output: str | os.PathLike, *, height: int, width: int) -> dict:
    """Writes ``features.pt``, ``detect.pt`` and ``export.json``, which describes them.

    Args:
        cfg: of the model; ``MODEL.WEIGHTS`` are its trained weights. The programs run on
            ``MODEL.DEVICE``.
        output: folder.
        height, width: of the frames, in pixels; the config's test-time resize follows.

    Returns:
        what ``export.json`` holds.

    Raises:
        ValueError: the model cannot be exported, or has no weights; names the key.
    """
    arch = cfg.MODEL.META_ARCHITECTURE
    if not takes_clips(cfg):
        raise ValueError(
            f"MODEL.META_ARCHITECTURE {arch}: only a model of clips is exported; Detectron2's own "
            "tools/deploy/export_model.py exports those of single frames"
        )
    if cfg.MODEL.SEGMENTER.NAME:
        raise ValueError(
            f"MODEL.SEGMENTER.NAME {cfg.MODEL.SEGMENTER.NAME} is not part of the network and "
            'cannot be exported; set it to "" for boxes and actions without masks'
        )
    for name, value in (("height", height), ("width", width)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1 pixel")
    model = build_model(cfg).eval()
    load_trained_weights(model, cfg)
    resized = T.AugInput(np.zeros((height, width, 3), dtype=np.uint8))
    T.AugmentationList(build_augmentations(cfg, is_train=False))(resized)
    input_size = resized.image.shape[:2]
    radius = temporal_radius(cfg)
    programs = trace_programs(
        model, frame_size=(height, width), input_size=input_size, radius=radius
    )
    output = Path(output)
    files = {"features": "features.pt", "detect": "detect.pt"}
    for name, file in files.items():
        with atomic_stream(output / file) as stream, _without_warnings():
            torch.jit.save(getattr(programs, name), stream)
    description = {
        "programs": files,
        "features": programs.feature_names,
        "detections": programs.detection_names,
        "frame_size": [height, width],
        "input_size": list(input_size),
        "window": {
            "length": cfg.INPUT.CLIP.LENGTH,
            "stride": cfg.INPUT.CLIP.STRIDE,
            "radius": radius,
        },
        "flow_method": None if model.flow_backbone is None else cfg.INPUT.FLOW_METHOD,
        "device": cfg.MODEL.DEVICE,
        "torch": torch.__version__,
        "label_space": model_label_space(cfg).to_dict(),
    }
    write_json(output / "export.json", description)
    return description


def trace_programs(
    model: ActorActionRCNN, *, frame_size: tuple[int, int], input_size: tuple[int, int], radius: int
) -> Programs:
    """Traces a model in evaluation mode.

    Args:
        frame_size: (height, width) that detections refer to.
        input_size: (height, width) of what the network is fed, before padding.
        radius: of the temporal modules; a key frame has 2 * radius + 1 frames around it.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (2 * radius + 1, 3, *input_size)
    inputs = [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)]
    if model.flow_backbone is not None:
        inputs.append(torch.randn(shape, generator=generator))
    inputs = tuple(x.to(model.device) for x in inputs)
    neighbours = torch.arange(2 * radius + 1, device=model.device)[None]

    extract = functools.partial(
        _extract_features,
        of_size=_scripted(_of_size),
        as_many=_scripted(_as_many),
        input_size=tuple(input_size),
        padded_size=_padded_size(model, input_size),
    )
    with torch.no_grad():
        features = extract(model, *inputs)
    others = [name for name, _ in model.named_children() if name not in BACKBONES]
    detect = functools.partial(
        _detect,
        in_range=_scripted(_in_range),
        radius=radius,
        input_size=tuple(input_size),
        frame_size=tuple(frame_size),
    )
    first, feature_names = _trace(_part(model, BACKBONES), inputs, extract)
    second, detection_names = _trace(_part(model, others), (features, neighbours), detect)
    return Programs(first, second, feature_names, detection_names)


def _part(model: ActorActionRCNN, kept: Collection[str]) -> ActorActionRCNN:
    """The same model without the parts that are not ``kept``, so that no program stores them."""
    part = copy.copy(model)
    part._modules = {
        name: module if name in kept else None for name, module in model._modules.items()
    }
    return part


def _padded_size(model: ActorActionRCNN, input_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) to which the model pads its input."""
    batch = ImageList.from_tensors(
        [torch.empty(input_size)],
        model.backbone.size_divisibility,
        padding_constraints=model.backbone.padding_constraints,
    )
    height, width = batch.tensor.shape[-2:]
    return height, width


def _trace(
    model: nn.Module, inputs: tuple, function: Callable[..., dict[str, Tensor]]
) -> tuple[torch.jit.ScriptModule, list[str]]:
    """Traces ``function(model, *inputs)``, which gives a dict of tensors.

    Returns:
        the program, from the flattened inputs to the values of the dict, and their names.
    """
    adapter = TracingAdapter(model, inputs, function)
    with _without_warnings(), patch_builtin_len(["a2d_d2.modeling.action_head"]):
        program = torch.jit.trace(adapter, adapter.flattened_inputs, check_trace=False)
    return program, list(adapter.outputs_schema.keys)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Hides that checks become constants, as they should, and that TorchScript is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
        warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)
        yield


@functools.cache
def _scripted(check: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A check in a form that tracing keeps, if what it gives back is used: its first argument."""
    with _without_warnings():
        return torch.jit.script(check)


def _of_size(frames: Tensor, is_flow: bool, height: int, width: int) -> Tensor:
    """Refuses images that are not uint8, flow that is not float32, and either of another size than
    (F, 3, height, width)."""
    if frames.dtype != (torch.float32 if is_flow else torch.uint8):
        raise ValueError("images, which come first, must be uint8, and flow float32")
    if frames.dim() != 4 or frames.size(1) != 3:
        raise ValueError(f"frames and flow must be (F, 3, h, w), got {frames.shape}")
    if frames.size(2) != height or frames.size(3) != width:
        raise ValueError(
            f"this program takes frames and flow of {height} x {width} pixels (input_size), "
            f"got {frames.size(2)} x {frames.size(3)}"
        )
    return frames


def _as_many(flow: Tensor, images: Tensor) -> Tensor:
    """Refuses flow of another number of frames than ``images``."""
    if flow.size(0) != images.size(0):
        raise ValueError(
            f"flow and images must be of the same frames, got {images.size(0)} images and flow of "
            f"{flow.size(0)} frames"
        )
    return flow


def _in_range(neighbours: Tensor, features: list[Tensor], radius: int) -> Tensor:
    """Refuses neighbours that are not (1, 2 * radius + 1) positions in every one of the features,
    or -1 beside the key frame; and features that are not all of F frames."""
    length, frames = 2 * radius + 1, features[0].size(0)
    for x in features:
        if x.size(0) != frames:
            raise ValueError(
                f"features must be of the same frames, got some of {frames} and some of {x.size(0)}"
            )
    if neighbours.dtype != torch.int64:
        raise ValueError("neighbours must be int64")
    if neighbours.dim() != 2 or neighbours.size(0) != 1 or neighbours.size(1) != length:
        raise ValueError(
            f"neighbours must be (1, {length}), the key frame in the middle, got {neighbours.shape}"
        )
    row: list[int] = neighbours[0].tolist()
    if row[radius] < 0 or min(row) < -1 or max(row) >= frames:
        raise ValueError(
            f"neighbours must be positions from 0 to {frames - 1} in the features of {frames} "
            f"frames, or -1 where there is none, but not in the middle, got {row}"
        )
    return neighbours


def _extract_features(
    model: ActorActionRCNN,
    images: Tensor,
    flow: Tensor | None = None,
    *,
    of_size: Callable[..., Tensor],
    as_many: Callable[..., Tensor],
    input_size: tuple[int, int],
    padded_size: tuple[int, int],
) -> dict[str, Tensor]:
    """ActorActionRCNN.preprocess and extract_features for frames of one size.

    Args:
        images, flow: (F, 3, h, w) as ClipDatasetMapper makes them.
        of_size, as_many: the checks of these names, scripted.

    Returns:
        "appearance.p2" and so on: the pyramids of the frames.
    """
    height, width = padded_size

    def normalised(frames: Tensor, is_flow: bool, mean: Tensor, std: Tensor) -> Tensor:
        frames = (of_size(frames, is_flow, *input_size) - mean) / std
        frames = F.pad(frames, (0, width - frames.shape[-1], 0, height - frames.shape[-2]))
        return frames.contiguous(memory_format=torch.channels_last)

    images = normalised(images, False, model.pixel_mean, model.pixel_std)
    if flow is not None:
        flow = as_many(flow, images)
        flow = normalised(flow, True, model.flow_mean, model.flow_std)
    features = model.extract_features(images, flow)
    named = {f"appearance.{level}": x for level, x in features.appearance.items()}
    if features.motion is not None:
        named |= {f"motion.{level}": x for level, x in features.motion.items()}
    return named


def _detect(
    model: ActorActionRCNN,
    features: dict[str, Tensor],
    neighbours: Tensor,
    *,
    in_range: Callable[..., Tensor],
    radius: int,
    input_size: tuple[int, int],
    frame_size: tuple[int, int],
) -> dict[str, Tensor]:
    """ActorActionRCNN.aggregate and detect for one key frame.

    Args:
        features: of F frames, from :func:`_extract_features`.
        neighbours: (1, V).
        in_range: the check of this name, scripted.

    Returns:
        The fields of the detections, boxes as a tensor.
    """
    neighbours = in_range(neighbours, list(features.values()), radius)
    streams = {"appearance": {}, "motion": {}}
    for name, x in features.items():
        stream, level = name.split(".", maxsplit=1)
        streams[stream][level] = x
    motion = streams["motion"] or None
    fused = model.aggregate(FrameFeatures(streams["appearance"], motion), neighbours)
    appearance = {level: x[neighbours[:, radius]] for level, x in streams["appearance"].items()}
    (instances,) = model.detect(appearance, fused, [input_size])
    instances = detector_postprocess(instances, *frame_size)
    fields = instances.get_fields()
    return {name: getattr(value, "tensor", value) for name, value in fields.items()}
