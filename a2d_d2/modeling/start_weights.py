"""Start weights (section 4): a COCO Mask R-CNN for appearance, an ImageNet ResNet for flow."""

import logging
import os
import pickle
import struct
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlparse

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager
from torch import Tensor, nn

from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.weights import CompressedError, SafeCheckpointer

logger = logging.getLogger(__name__)

# What reading a file raises that is missing, broken or no checkpoint.
_UNREADABLE = (OSError, EOFError, RuntimeError, LookupError, AttributeError, TypeError, ValueError)
_UNREADABLE += (pickle.UnpicklingError, struct.error, AssertionError, ArithmeticError, MemoryError)
FLOW_PREFIX = "flow_backbone."
FLOW_STREAM = (FLOW_PREFIX, "temporal.motion.")
BATCH_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")
# Layers whose outputs belong to classes, and how many of them to each.
ROWS_PER_CLASS = {
    "roi_heads.box_predictor.cls_score": 1,  # background follows the classes
    "roi_heads.box_predictor.bbox_pred": 4,
    "roi_heads.mask_head.predictor": 1,
}
# Layers that are of use only with the layers before them.
BOX_HEAD, BOX_PREDICTOR = "roi_heads.box_head.", "roi_heads.box_predictor."


@dataclass(frozen=True)
class LoadedWeights:
    """What became of the tensors of one stream.

    Attributes:
        loaded: number of tensors that came from a file.
        left: names of those that keep their start values.
    """

    loaded: int
    left: tuple[str, ...]

    @property
    def total(self) -> int:
        return self.loaded + len(self.left)


def load_start_weights(model: nn.Module, cfg: CfgNode) -> dict[str, LoadedWeights]:
    """Loads the start weights of an ActorActionRCNN, or a GeneralizedRCNN, and logs a summary.

    The keys hold paths or addresses (``detectron2://``, ``https://``); an empty one loads nothing.
    ``MODEL.WEIGHTS`` is a Mask R-CNN or an ImageNet ResNet of Detectron2's model zoo, for the
    appearance stream and the heads, or a checkpoint of this project, for everything.
    ``MODEL.FLOW.WEIGHTS``, an ImageNet ResNet, is for the flow backbone; it is not read when
    ``MODEL.WEIGHTS`` had one.

    With ``MODEL.ACTORS_FROM_COCO`` the class rows of a COCO model start the actors for which the
    label space names a COCO class, or all pairs of these actors. Other weights that depend on the
    classes keep their start values, and so do the box head and all that follows it when it is fed
    other features than in the file (CartesianROIHeads).

    Returns:
        What was loaded: "flow" (the flow backbone and its temporal module, where there is one) and
        "appearance" (everything else).

    Raises:
        ValueError: a file is missing, unreadable, or fits nothing; names the key and the remedy.
    """
    loaded = set()
    if cfg.MODEL.WEIGHTS:
        rows = {}
        if cfg.MODEL.ACTORS_FROM_COCO:
            rows = coco_rows(LabelSpace.load(cfg.DATASETS.LABEL_SPACE), cfg.MODEL.CLASSES)
        loaded |= load_weights(model, "MODEL.WEIGHTS", cfg.MODEL.WEIGHTS, rows)
    flow_source = cfg.MODEL.WEIGHTS
    flow_backbone = getattr(model, "flow_backbone", None)
    if flow_backbone is not None and not any(name.startswith(FLOW_PREFIX) for name in loaded):
        flow_source = cfg.MODEL.FLOW.WEIGHTS
        if flow_source:
            prefix = FLOW_PREFIX + "bottom_up."
            names = load_weights(flow_backbone.bottom_up, "MODEL.FLOW.WEIGHTS", flow_source)
            loaded |= {prefix + name for name in names}

    streams = {"appearance": [], "flow": []}
    for name in model.state_dict():
        if not name.endswith("num_batches_tracked"):  # a counter of BatchNorm, not a weight
            streams["flow" if name.startswith(FLOW_STREAM) else "appearance"].append(name)
    result = {}
    for stream, source in (("appearance", cfg.MODEL.WEIGHTS), ("flow", flow_source)):
        if streams[stream]:
            left = tuple(name for name in streams[stream] if name not in loaded)
            result[stream] = LoadedWeights(len(streams[stream]) - len(left), left)
            logger.info(_summary(stream, source, result[stream]))
    return result


def load_trained_weights(model: nn.Module, cfg: CfgNode) -> None:
    """Loads ``MODEL.WEIGHTS`` for evaluation.

    Raises:
        ValueError: there are no weights, or they do not fill the whole model.
    """
    if not cfg.MODEL.WEIGHTS:
        raise ValueError(
            "MODEL.WEIGHTS is empty; it must name the checkpoint of a trained model (train_net.py "
            "--eval-only --resume takes the last one of OUTPUT_DIR)"
        )
    left = [name for stream in load_start_weights(model, cfg).values() for name in stream.left]
    if left:
        raise ValueError(
            f"MODEL.WEIGHTS ({cfg.MODEL.WEIGHTS}) lacks {len(left)} tensors of the model, "
            f"{left[0]} first; evaluate with the config and label space it was trained with"
        )


def coco_rows(label_space: LabelSpace, classes: str = "actors") -> dict[int, int]:
    """Index of an actor, or of a pair, to that of the COCO class named for the actor.

    Args:
        label_space: names the COCO classes.
        classes: whether indices are of "actors" or of the valid "pairs".

    Raises:
        ValueError: COCO has no class of that name.
    """
    coco = MetadataCatalog.get("coco_2017_val").thing_classes
    for actor, name in label_space.coco_names.items():
        if name not in coco:
            raise ValueError(
                f"label space {label_space.name}: coco.{actor} is {name!r}, which is not one of "
                f"COCO's classes: {', '.join(coco)}"
            )
    rows = {
        label_space.actor_index(actor): coco.index(name)
        for actor, name in label_space.coco_names.items()
    }
    if classes == "actors":
        return rows
    return {
        pair: rows[actor]
        for pair, (actor, _) in enumerate(label_space.valid_pairs)
        if actor in rows
    }


class _Reader(SafeCheckpointer):
    """Loads one file into a module, and keeps the names loaded instead of warning of the others."""

    def __init__(self, module: nn.Module, rows: dict[int, int]):
        super().__init__(module)
        self.rows = rows
        self.loaded = set()

    def _load_model(self, checkpoint: dict):
        if checkpoint.get("matching_heuristics") and hasattr(self.model, "flow_backbone"):
            # Names are matched by their ends, and both backbones have the same: offer only one.
            parts = ("backbone", "proposal_generator", "roi_heads")
            self.model = nn.ModuleDict({name: getattr(self.model, name) for name in parts})
        self._convert_ndarray_to_tensor(checkpoint["model"])
        own = self.model.state_dict()
        start_classes(checkpoint["model"], own, self.rows)
        drop_unfed_layers(checkpoint["model"], own)
        incompatible = super()._load_model(checkpoint)
        wrong_shape = [name for name, _, _ in incompatible.incorrect_shapes]
        loaded = set(own).difference(incompatible.missing_keys, wrong_shape)
        # Batch norm never misses some of its statistics (they may be merged into the weights, as in
        # the zoo's ResNets): they came with the layer's weight or not at all.
        statistics = {name for name in loaded if name.endswith(BATCH_STATISTICS)}
        self.loaded = loaded - {
            name for name in statistics if name.rpartition(".")[0] + ".weight" not in loaded
        }
        return incompatible

    def _log_incompatible_keys(self, incompatible) -> None:
        """Says nothing: the summary of each stream lists what was left, once."""


def drop_unfed_layers(weights: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """Drops the box head of a checkpoint, and its predictor, if one of its layers does not fit.

    Args:
        weights: of a checkpoint, by name; changed in place.
        own: start values of the model, by name.
    """
    head = [name for name in weights if name.startswith(BOX_HEAD)]
    if any(name in own and own[name].shape != weights[name].shape for name in head):
        for name in [x for x in weights if x.startswith((BOX_HEAD, BOX_PREDICTOR))]:
            del weights[name]


def start_classes(weights: dict[str, Tensor], own: dict[str, Tensor], rows: dict[int, int]) -> None:
    """Replaces the class-dependent tensors of a COCO model by ones for the model's classes.

    Args:
        weights: of a checkpoint, by name; changed in place when they are for COCO's 80 classes.
        own: start values of the model, by name; classes without a row keep theirs.
        rows: class to COCO class, as :func:`coco_rows` gives; empty changes nothing.
    """
    num_coco = len(MetadataCatalog.get("coco_2017_val").thing_classes)
    for layer, step in ROWS_PER_CLASS.items():
        for name in (f"{layer}.weight", f"{layer}.bias"):
            if not rows or name not in weights or name not in own:
                continue
            theirs, ours = weights[name], own[name].clone()
            background = len(theirs) - num_coco * step  # rows
            if ours.shape == theirs.shape or ours.shape[1:] != theirs.shape[1:]:
                continue
            if background not in (0, 1):
                continue
            for index, row in rows.items():
                ours[index * step : (index + 1) * step] = theirs[row * step : (row + 1) * step]
            if background:
                ours[-1] = theirs[-1]
            weights[name] = ours


def load_weights(
    module: nn.Module, key: str, path: str, rows: dict[int, int] | None = None
) -> set[str]:
    """Loads a file into ``module`` and returns the names of its tensors that came from there."""
    reader = _Reader(module, rows or {})
    try:
        local = PathManager.get_local_path(urlparse(path)._replace(query="").geturl())
        if not os.path.isfile(local):
            raise FileNotFoundError("there is no such file")
        reader.load(path)
    except _UNREADABLE as error:
        # What torch and pickle say of a file that is something else helps nobody.
        reason = "it is not a checkpoint of tensors and plain types alone, or cut off"
        reason = error if isinstance(error, OSError | CompressedError) else reason
        raise ValueError(
            f"cannot load {key} ({path}): {reason}; give a checkpoint that can be read (a training "
            f'starts at random with an empty {key}, "")'
        ) from error
    if not reader.loaded:
        raise ValueError(
            f"{key} ({path}) fits no tensor of the model; it must be of the same architecture "
            "(MODEL.BACKBONE, MODEL.RESNETS.DEPTH)"
        )
    return reader.loaded


def _summary(stream: str, source: str, weights: LoadedWeights) -> str:
    if not source:
        return f"{stream} stream: starts at random, all {weights.total} tensors"
    line = f"{stream} stream: {weights.loaded} of {weights.total} tensors from {source}"
    return f"{line}; left at start values: {_group(weights.left)}" if weights.left else line


def _group(names: Iterable[str]) -> str:
    """ "a.b.{weight,bias}, a.c.weight" """
    tensors = defaultdict(list)
    for name in names:
        module, _, tensor = name.rpartition(".")
        tensors[module].append(tensor)
    return ", ".join(
        f"{module}.{{{','.join(kinds)}}}" if len(kinds) > 1 else f"{module}.{kinds[0]}"
        for module, kinds in tensors.items()
    )
