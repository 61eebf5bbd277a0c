"""What the values of a configuration may be, checked before anything is built.

Detectron2's builders find a wrong value late, and say so with an assertion or a KeyError. Here each
key has a rule, and the keys that must fit each other are compared.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.modeling import ANCHOR_GENERATOR_REGISTRY, META_ARCH_REGISTRY, ROI_HEADS_REGISTRY
from detectron2.modeling.proposal_generator.build import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator.rpn import RPN_HEAD_REGISTRY
from detectron2.modeling.roi_heads import CascadeROIHeads, Res5ROIHeads
from detectron2.modeling.roi_heads.box_head import ROI_BOX_HEAD_REGISTRY
from detectron2.modeling.roi_heads.mask_head import ROI_MASK_HEAD_REGISTRY
from fvcore.common.registry import Registry

from a2d_d2.evaluation.scoring import SCORE_PATHS
from a2d_d2.modeling import FUSION_REGISTRY, ROI_ACTION_HEAD_REGISTRY, TEMPORAL_REGISTRY
from a2d_d2.utils.config_files import flat_keys, leaves, short

# Of all numbers, of whole ones, of widths and of counts: what is beyond can only be a slip.
_GREATEST, _LARGEST, _WIDEST, _DEEPEST = 1e30, 2**31 - 1, 16384, 64
_STAGES = ("res2", "res3", "res4", "res5")
# Levels that a pyramid adds to those of its stages.
_PYRAMIDS = {
    "build_resnet_fpn_backbone": ("p6",),
    "build_resnet_fpn_backbone_without_pooling": (),
    "build_retinanet_resnet_fpn_backbone": ("p6", "p7"),
}


@dataclass(frozen=True)
class Rule:
    """Which values a key may have.

    Attributes:
        allowed: in words, after "it must be".
        accepts: whether a value is one of them.
        names: that a text must be one of, for the nearest.
    """

    allowed: str
    accepts: Callable[[object], bool]
    names: Callable[[], Iterable[str]] = tuple

    def check(self, key: str, value) -> None:
        """ValueError that names the key, its value and what is allowed."""
        if self.accepts(value):
            return
        names = sorted(self.names())
        allowed = self.allowed + ", ".join(name or '""' for name in names)
        if isinstance(value, str):
            for nearest in difflib.get_close_matches(value[:200], names, n=1):
                allowed += f"; the nearest is {nearest}"
        raise ValueError(f"{key} is {short(repr(value))}; it must be {allowed}")


def _whole(low: int, high: int = _LARGEST) -> Rule:
    words = f"of at least {low}" if high == _LARGEST else f"from {low} to {high}"
    return Rule(f"a whole number {words}", lambda x: isinstance(x, int) and low <= x <= high)


def _number(words: str, accepts: Callable[[float], bool]) -> Rule:
    return Rule(words, lambda x: math.isfinite(x) and accepts(x))


def _only(value: bool, why: str) -> Rule:
    return Rule(f"{value}: {why}", lambda x: x == value)


def _one_of(*names: str) -> Rule:
    return Rule("one of ", names.__contains__, lambda: names)


def _is_score(path: object) -> bool:
    """Whether it names a score of ours, or none of ours is meant."""
    if not isinstance(path, str) or path in ("", *SCORE_PATHS):
        return path in ("", *SCORE_PATHS)
    tasks = {known.split("/")[0] for known in SCORE_PATHS}
    return not any(difflib.get_close_matches(part, tasks, n=1) for part in path.split("/"))


def _registered(registry: Registry, without: str = "", *others: str) -> Rule:
    """A name of a registry, read when it is asked: others may add theirs. ``others`` too."""

    def names() -> list[str]:
        return [*others, *(name for name, _ in registry if name not in without.split())]

    return Rule("one of ", lambda x: x in names(), names)


def _each(rule: Rule, count: int = 0, words: str = "") -> Rule:
    """A list of ``count`` values, or of at least one."""
    number = f"{count} values" if count else "at least one value"
    return Rule(
        words or f"a list of {number}, each {rule.allowed}",
        lambda x: (
            isinstance(x, list | tuple)
            and (len(x) == count if count else len(x) > 0)
            and all(map(rule.accepts, x))
        ),
        rule.names,
    )


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_grid(value) -> bool:
    """Whether it is positive numbers, or lists of them, none empty."""
    rows = value if all(isinstance(row, list | tuple) for row in value) else [value]
    return bool(rows) and all(
        len(row) and all(not isinstance(x, list | tuple) and x > 0 for x in row) for row in rows
    )


_FINITE = _number("a finite number", lambda x: True)
_POSITIVE = _number("a finite number above 0", lambda x: x > 0)
_NOT_NEGATIVE = _number("a finite number of at least 0", lambda x: x >= 0)
_FRACTION = _number("a number from 0 to 1", lambda x: 0 <= x <= 1)
_BELOW_ONE = _number("at least 0 and below 1", lambda x: 0 <= x < 1)
_NORM = _one_of("", "BN", "SyncBN", "FrozenBN", "GN", "nnSyncBN", "naiveSyncBN", "LN")
_GRID = Rule("a list of lists of positive numbers", _is_grid)
_LEVELS = Rule(
    "a list of names without repetition, at least one", lambda x: 0 < len(x) == len(set(x))
)
_THRESHOLDS = Rule(
    "a list of rising numbers above 0 and up to 1",
    lambda x: len(x) > 0 and x[0] > 0 and x[-1] <= 1 and list(x) == sorted(x),
)
_LABELS = Rule("a list of -1, 0 and 1", lambda x: set(x) <= {-1, 0, 1})
_REG_LOSS = _one_of("smooth_l1", "giou", "diou", "ciou")

_TABLE = (
    # ---- model
    (_only(False, "there are no keypoints here"), "MODEL.KEYPOINT_ON"),
    (_only(False, "proposals are computed"), "MODEL.LOAD_PROPOSALS"),
    (
        _registered(
            META_ARCH_REGISTRY,
            without="FCOS PanopticFPN ProposalNetwork RetinaNet SemanticSegmentor",
        ),
        "MODEL.META_ARCHITECTURE",
    ),
    (_registered(PROPOSAL_GENERATOR_REGISTRY, without="RRPN"), "MODEL.PROPOSAL_GENERATOR.NAME"),
    (
        _registered(ANCHOR_GENERATOR_REGISTRY, without="RotatedAnchorGenerator"),
        "MODEL.ANCHOR_GENERATOR.NAME",
    ),
    (_registered(RPN_HEAD_REGISTRY), "MODEL.RPN.HEAD_NAME"),
    (_registered(ROI_HEADS_REGISTRY, without="RROIHeads"), "MODEL.ROI_HEADS.NAME"),
    # "" is Detectron2's default, for region heads that need none.
    (_registered(ROI_BOX_HEAD_REGISTRY, "", ""), "MODEL.ROI_BOX_HEAD.NAME"),
    (_registered(ROI_MASK_HEAD_REGISTRY), "MODEL.ROI_MASK_HEAD.NAME"),
    (_registered(ROI_ACTION_HEAD_REGISTRY), "MODEL.ROI_ACTION_HEAD.NAME"),
    (_registered(TEMPORAL_REGISTRY), "MODEL.TEMPORAL.NAME"),
    (_registered(FUSION_REGISTRY), "MODEL.FUSION.NAME"),
    (_each(_FINITE, 3), "MODEL.PIXEL_MEAN MODEL.FLOW.PIXEL_MEAN"),
    (_each(_POSITIVE, 3), "MODEL.PIXEL_STD MODEL.FLOW.PIXEL_STD"),
    (_whole(0, 5), "MODEL.BACKBONE.FREEZE_AT"),
    (Rule("18, 34, 50, 101 or 152", (18, 34, 50, 101, 152).__contains__), "MODEL.RESNETS.DEPTH"),
    (Rule("1 or 2", (1, 2).__contains__), "MODEL.RESNETS.RES5_DILATION"),
    (
        Rule(
            f"some of {', '.join(_STAGES)}, each once",
            lambda x: 0 < len(x) == len({*x} & {*_STAGES}),
        ),
        "MODEL.RESNETS.OUT_FEATURES",
    ),
    (_each(Rule("True or False", lambda x: True), 4), "MODEL.RESNETS.DEFORM_ON_PER_STAGE"),
    (
        _NORM,
        "MODEL.RESNETS.NORM MODEL.FPN.NORM MODEL.ROI_BOX_HEAD.NORM MODEL.ROI_MASK_HEAD.NORM",
    ),
    (_one_of("sum", "avg"), "MODEL.FPN.FUSE_TYPE"),
    (
        _whole(1, _WIDEST),
        "MODEL.RESNETS.NUM_GROUPS MODEL.RESNETS.WIDTH_PER_GROUP MODEL.RESNETS.RES2_OUT_CHANNELS "
        "MODEL.RESNETS.STEM_OUT_CHANNELS MODEL.RESNETS.DEFORM_NUM_GROUPS MODEL.FPN.OUT_CHANNELS "
        "MODEL.ROI_BOX_HEAD.FC_DIM MODEL.ROI_BOX_HEAD.CONV_DIM MODEL.ROI_MASK_HEAD.CONV_DIM "
        "MODEL.ROI_ACTION_HEAD.FC_DIM MODEL.ROI_ACTION_HEAD.CONV_DIM "
        "MODEL.ROI_HEADS.CANONICAL_BOX_SIZE",
    ),
    (
        _whole(0, _DEEPEST),
        "MODEL.ROI_BOX_HEAD.NUM_FC MODEL.ROI_BOX_HEAD.NUM_CONV MODEL.ROI_MASK_HEAD.NUM_CONV "
        "MODEL.ROI_ACTION_HEAD.NUM_FC MODEL.ROI_ACTION_HEAD.NUM_CONV MODEL.TEMPORAL.NUM_LAYERS "
        "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO "
        "MODEL.ROI_ACTION_HEAD.POOLER_SAMPLING_RATIO",
    ),
    (
        _whole(1, 256),
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION "
        "MODEL.ROI_ACTION_HEAD.POOLER_RESOLUTION",
    ),
    (
        _one_of("ROIAlign", "ROIAlignV2", "ROIPool"),
        "MODEL.ROI_BOX_HEAD.POOLER_TYPE MODEL.ROI_MASK_HEAD.POOLER_TYPE "
        "MODEL.ROI_ACTION_HEAD.POOLER_TYPE",
    ),
    (_GRID, "MODEL.ANCHOR_GENERATOR.SIZES MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"),
    (_BELOW_ONE, "MODEL.ANCHOR_GENERATOR.OFFSET"),
    (_LEVELS, "MODEL.RPN.IN_FEATURES MODEL.ROI_HEADS.IN_FEATURES"),
    (
        _each(
            Rule("", lambda x: isinstance(x, int) and (x == -1 or 1 <= x <= _WIDEST)),
            words="a list of widths, -1 for the one before",
        ),
        "MODEL.RPN.CONV_DIMS",
    ),
    (
        _THRESHOLDS,
        "MODEL.RPN.IOU_THRESHOLDS MODEL.ROI_HEADS.IOU_THRESHOLDS MODEL.ROI_BOX_CASCADE_HEAD.IOUS",
    ),
    (_LABELS, "MODEL.RPN.IOU_LABELS MODEL.ROI_HEADS.IOU_LABELS"),
    (
        _whole(1),
        "MODEL.RPN.BATCH_SIZE_PER_IMAGE MODEL.RPN.PRE_NMS_TOPK_TRAIN MODEL.RPN.PRE_NMS_TOPK_TEST "
        "MODEL.RPN.POST_NMS_TOPK_TRAIN MODEL.RPN.POST_NMS_TOPK_TEST "
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE TEST.DETECTIONS_PER_IMAGE TEST.PRECISE_BN.NUM_ITER",
    ),
    (
        _FRACTION,
        "MODEL.RPN.POSITIVE_FRACTION MODEL.RPN.NMS_THRESH MODEL.ROI_HEADS.POSITIVE_FRACTION "
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST MODEL.ROI_HEADS.NMS_THRESH_TEST "
        "MODEL.SEGMENTER.MIN_SCORE TEST.ACTOR_THRESH TEST.ACTION_THRESH",
    ),
    (_REG_LOSS, "MODEL.RPN.BBOX_REG_LOSS_TYPE MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE"),
    (_each(_POSITIVE, 4), "MODEL.RPN.BBOX_REG_WEIGHTS MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS"),
    (
        _each(_each(_POSITIVE, 4), words="a list of lists of 4 positive numbers"),
        "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS",
    ),
    (
        _NOT_NEGATIVE,
        "MODEL.RPN.LOSS_WEIGHT MODEL.RPN.BBOX_REG_LOSS_WEIGHT MODEL.RPN.SMOOTH_L1_BETA "
        "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA "
        "MODEL.PROPOSAL_GENERATOR.MIN_SIZE MODEL.LOSS_WEIGHTS.RPN_CLS MODEL.LOSS_WEIGHTS.BOX_REG "
        "MODEL.LOSS_WEIGHTS.ACTOR MODEL.LOSS_WEIGHTS.ACTION MODEL.LOSS_WEIGHTS.MASK",
    ),
    (_only(False, "it needs LVIS's counts"), "MODEL.ROI_BOX_HEAD.USE_FED_LOSS"),
    # ---- input
    (_each(_whole(1, _WIDEST)), "INPUT.MIN_SIZE_TRAIN"),
    (_whole(0, _WIDEST), "INPUT.MIN_SIZE_TEST"),
    (_whole(1, _WIDEST), "INPUT.MAX_SIZE_TRAIN INPUT.MAX_SIZE_TEST"),
    (_one_of("choice", "range"), "INPUT.MIN_SIZE_TRAIN_SAMPLING"),
    (_one_of("horizontal", "vertical", "none"), "INPUT.RANDOM_FLIP"),
    (_one_of("relative", "relative_range", "absolute", "absolute_range"), "INPUT.CROP.TYPE"),
    (_each(_POSITIVE, 2), "INPUT.CROP.SIZE"),
    (_BELOW_ONE, "INPUT.COLOR_JITTER"),
    (_whole(1, 1000), "INPUT.CLIP.LENGTH INPUT.CLIP.STRIDE"),
    (_whole(0, 1024), "DATALOADER.NUM_WORKERS"),
    (_one_of("TrainingSampler"), "DATALOADER.SAMPLER_TRAIN"),
    (_whole(0), "DATASETS.HOLD_OUT"),
    (_whole(-1), "SEED"),
    (Rule("a list of names without repetition", lambda x: len(x) == len(set(x))), "DATASETS.TEST"),
    # ---- solver
    (
        _whole(1),
        "SOLVER.MAX_ITER SOLVER.IMS_PER_BATCH SOLVER.CHECKPOINT_PERIOD SOLVER.ACCUMULATE "
        "TEST.IMS_PER_BATCH",
    ),
    (
        _whole(0),
        "SOLVER.CHECKPOINTS_KEPT SOLVER.MAX_SKIPPED_STEPS SOLVER.WARMUP_ITERS "
        "SOLVER.REFERENCE_WORLD_SIZE TEST.EVAL_PERIOD TEST.NUM_PICTURES VIS_PERIOD",
    ),
    (_whole(0, 1000), "SOLVER.NUM_DECAYS"),
    (
        Rule("a list of whole numbers", lambda x: all(isinstance(step, int) for step in x)),
        "SOLVER.STEPS",
    ),
    (_number("a number above 0 and up to 1", lambda x: 0 < x <= 1), "SOLVER.GAMMA"),
    (_POSITIVE, "SOLVER.BASE_LR SOLVER.WARMUP_FACTOR"),
    (
        _NOT_NEGATIVE,
        "SOLVER.BASE_LR_END SOLVER.WEIGHT_DECAY SOLVER.WEIGHT_DECAY_NORM SOLVER.BIAS_LR_FACTOR "
        "SOLVER.MAX_GRAD_NORM",
    ),
    (
        Rule("None or a number of at least 0", lambda x: x is None or _is_number(x) and x >= 0),
        "SOLVER.WEIGHT_DECAY_BIAS",
    ),
    (_BELOW_ONE, "SOLVER.MOMENTUM"),
    (_one_of("SGD", "ADAMW"), "SOLVER.OPTIMIZER"),
    (
        _one_of("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"),
        "SOLVER.LR_SCHEDULER_NAME",
    ),
    (_one_of("linear", "constant"), "SOLVER.WARMUP_METHOD"),
    (_one_of("bfloat16", "float16"), "SOLVER.AMP.PRECISION"),
    (_only(False, "set SOLVER.MAX_GRAD_NORM instead"), "SOLVER.CLIP_GRADIENTS.ENABLED"),
    (_only(False, "a frame is tested at one size"), "TEST.AUG.ENABLED"),
    (
        Rule("a score of your own evaluator or one of ", _is_score, lambda: ("", *SCORE_PATHS)),
        "TEST.BEST_METRIC",
    ),
    (Rule("the name of a folder", lambda x: x.strip() and "\0" not in x), "OUTPUT_DIR"),
)
_NESTED = (  # lists of lists
    *("MODEL.ANCHOR_GENERATOR.SIZES", "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"),
    *("MODEL.ANCHOR_GENERATOR.ANGLES", "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS"),
    "TEST.EXPECTED_RESULTS",
)
RULES = {key: rule for rule, keys in _TABLE for key in keys.split()}


def check_values(cfg: CfgNode) -> None:
    """Refuses values that no model, solver or loader can be made with.

    Raises:
        ValueError: one line that names the key, its value and what is allowed.
    """
    for key, value in flat_keys(cfg, ""):
        if any(map(_is_wild, leaves(value))):
            raise ValueError(
                f"{key} is {short(repr(value))}; its numbers must be finite, whole ones at most "
                f"{_LARGEST} and others {_GREATEST:g}"
            )
        if key not in _NESTED and any(isinstance(x, list | tuple) for x in _items(value)):
            raise ValueError(
                f"{key} is {short(repr(value))}; it must be a list without lists in it"
            )
        if key in RULES:
            RULES[key].check(key, value)
    for problem in _conflicts(cfg):
        raise ValueError(problem)


def _items(value) -> Sequence:
    return value if isinstance(value, list | tuple) else ()


def _is_wild(value) -> bool:
    if isinstance(value, int):
        return abs(value) > _LARGEST
    return isinstance(value, float) and not abs(value) <= _GREATEST


def _conflicts(cfg: CfgNode) -> Iterator[str]:
    """What is wrong between keys that are right by themselves."""
    yield from _network_conflicts(cfg.MODEL)
    yield from _head_conflicts(cfg.MODEL)
    sizes, crop, solver = cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.CROP, cfg.SOLVER
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range" and (len(sizes) != 2 or sizes[0] > sizes[1]):
        yield (
            f"INPUT.MIN_SIZE_TRAIN is {sizes}; with INPUT.MIN_SIZE_TRAIN_SAMPLING range it must be "
            "the smallest and the largest size"
        )
    if crop.TYPE.startswith("relative") and max(crop.SIZE) > 1:
        yield f"INPUT.CROP.SIZE is {crop.SIZE}; with INPUT.CROP.TYPE {crop.TYPE} it is at most 1"
    if crop.TYPE.startswith("absolute") and not all(isinstance(x, int) for x in crop.SIZE):
        yield (
            f"INPUT.CROP.SIZE is {crop.SIZE}; with INPUT.CROP.TYPE {crop.TYPE} it must be whole "
            "numbers of pixels"
        )
    if crop.TYPE == "absolute_range" and crop.SIZE[0] > crop.SIZE[1]:
        yield (
            f"INPUT.CROP.SIZE is {crop.SIZE}; with INPUT.CROP.TYPE absolute_range it must be the "
            "smallest and the largest size"
        )
    if (world := solver.REFERENCE_WORLD_SIZE) and solver.IMS_PER_BATCH % world:
        yield (
            f"SOLVER.REFERENCE_WORLD_SIZE is {world}; it must divide SOLVER.IMS_PER_BATCH "
            f"{solver.IMS_PER_BATCH}, or be 0"
        )
    steps = [step for step in solver.STEPS if step <= solver.MAX_ITER]  # others are left out
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR" and steps != [
        step for step in sorted(set(steps)) if 0 < step < solver.MAX_ITER
    ]:
        yield (
            f"SOLVER.STEPS is {short(repr(solver.STEPS))}; it must be rising whole numbers above 0 "
            f"and below SOLVER.MAX_ITER {solver.MAX_ITER}"
        )
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR" and solver.BASE_LR_END > solver.BASE_LR:
        yield (
            f"SOLVER.BASE_LR_END is {solver.BASE_LR_END}; it must be at most SOLVER.BASE_LR "
            f"{solver.BASE_LR}"
        )
    if solver.OPTIMIZER == "SGD" and solver.NESTEROV and solver.MOMENTUM == 0:
        yield "SOLVER.NESTEROV is True; it needs SOLVER.MOMENTUM above 0"


def _network_conflicts(model: CfgNode) -> Iterator[str]:
    """Of the backbone and of what takes its levels."""
    nets, inputs, name = model.RESNETS, model.FPN.IN_FEATURES, model.BACKBONE.NAME
    if nets.DEPTH in (18, 34):
        for key, value in (("RES2_OUT_CHANNELS", 64), ("RES5_DILATION", 1), ("NUM_GROUPS", 1)):
            if nets[key] != value:
                yield (
                    f"MODEL.RESNETS.{key} is {nets[key]}; with MODEL.RESNETS.DEPTH {nets.DEPTH} it "
                    f"must be {value}"
                )
    if any(nets.DEFORM_ON_PER_STAGE) and (nets.DEPTH < 50 or not torch.cuda.is_available()):
        yield (
            f"MODEL.RESNETS.DEFORM_ON_PER_STAGE is {nets.DEFORM_ON_PER_STAGE}; deformable "
            "convolutions need a GPU and MODEL.RESNETS.DEPTH of at least 50"
        )
    levels = None
    if name == "build_resnet_backbone":
        levels = nets.OUT_FEATURES
    elif name in _PYRAMIDS:
        runs = [_STAGES[i:j] for i in range(4) for j in range(i + 1, 5)]
        if tuple(inputs) not in runs or not {*inputs} <= {*nets.OUT_FEATURES}:
            yield (
                f"MODEL.FPN.IN_FEATURES is {inputs}; it must be neighbouring stages, in their "
                f"order, of MODEL.RESNETS.OUT_FEATURES {nets.OUT_FEATURES}"
            )
            return
        if _PYRAMIDS[name] and inputs[-1] != "res5":
            yield (
                f"MODEL.FPN.IN_FEATURES is {inputs}; with MODEL.BACKBONE.NAME {name} it must end "
                "with res5 (build_resnet_fpn_backbone_without_pooling does without)"
            )
        if nets.RES5_DILATION == 2 and "res5" in inputs:
            yield "MODEL.RESNETS.RES5_DILATION is 2; with res5 in MODEL.FPN.IN_FEATURES it is 1"
        levels = [*(stage.replace("res", "p") for stage in inputs), *_PYRAMIDS[name]]
    if levels is not None:  # else a backbone of the user's own
        yield from level_conflicts(model, levels)
    for key, node, widths in (
        ("RESNETS", nets, ("STEM_OUT_CHANNELS", "RES2_OUT_CHANNELS")),
        ("FPN", model.FPN, ("OUT_CHANNELS",)),
        ("ROI_BOX_HEAD", model.ROI_BOX_HEAD, ("CONV_DIM",)),
        ("ROI_MASK_HEAD", model.ROI_MASK_HEAD, ("CONV_DIM",)),
    ):
        for width in widths if node.NORM == "GN" else ():
            if node[width] % 32:
                yield (
                    f"MODEL.{key}.{width} is {node[width]}; with MODEL.{key}.NORM GN it must be a "
                    "multiple of 32"
                )
    if nets.NORM == "GN" and nets.NUM_GROUPS * nets.WIDTH_PER_GROUP % 32:
        yield (
            f"MODEL.RESNETS.WIDTH_PER_GROUP is {nets.WIDTH_PER_GROUP}; with MODEL.RESNETS.NORM GN "
            "its product with MODEL.RESNETS.NUM_GROUPS must be a multiple of 32"
        )


def level_conflicts(model: CfgNode, levels: Sequence[str]) -> Iterator[str]:
    """What is wrong with the levels that the heads take.

    Args:
        model: the node MODEL.
        levels: that the backbone gives.
    """
    for key in ("RPN", "ROI_HEADS"):
        names = model[key].IN_FEATURES
        if not {*names} <= {*levels}:
            yield (
                f"MODEL.{key}.IN_FEATURES is {names}; it must be some of {', '.join(levels)}, the "
                f"levels of MODEL.BACKBONE.NAME {model.BACKBONE.NAME}"
            )
        elif model.BACKBONE.NAME == "build_resnet_backbone" and len(names) > 1:
            yield (
                f"MODEL.{key}.IN_FEATURES is {names}; of MODEL.BACKBONE.NAME build_resnet_backbone "
                "it must be one level"
            )


def _head_conflicts(model: CfgNode) -> Iterator[str]:
    """Of the proposals and the region heads."""
    rois, anchors, levels = model.ROI_HEADS, model.ANCHOR_GENERATOR, model.RPN.IN_FEATURES
    numbers = [_per_level(anchors[key], len(levels)) for key in ("SIZES", "ASPECT_RATIOS")]
    for key, found in zip(("SIZES", "ASPECT_RATIOS"), numbers, strict=True):
        if len(found) != len(levels):
            yield (
                f"MODEL.ANCHOR_GENERATOR.{key} is {short(repr(anchors[key]))}; it must have one "
                f"list, or one for each of MODEL.RPN.IN_FEATURES {levels}"
            )
    if len({sizes * ratios for sizes, ratios in zip(*numbers, strict=False)}) > 1:
        yield (
            f"MODEL.ANCHOR_GENERATOR.SIZES is {short(repr(anchors.SIZES))}; with "
            "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS it must make as many anchors on each level"
        )
    for key in ("RPN", "ROI_HEADS"):
        thresholds, labels = model[key].IOU_THRESHOLDS, model[key].IOU_LABELS
        if len(labels) != len(thresholds) + 1:
            yield (
                f"MODEL.{key}.IOU_LABELS is {labels}; it must be one label more than "
                f"MODEL.{key}.IOU_THRESHOLDS {thresholds}"
            )
    numbers = [int(level[1:]) for level in rois.IN_FEATURES if re.fullmatch(r"p\d", level)]
    if len(numbers) > 1 and numbers != [*range(numbers[0], numbers[0] + len(numbers))]:
        yield (
            f"MODEL.ROI_HEADS.IN_FEATURES is {rois.IN_FEATURES}; it must be neighbouring levels in "
            "their order"
        )
    for key in ("ROI_BOX_HEAD", "ROI_ACTION_HEAD"):
        if model[key].NAME and model[key].NUM_FC + model[key].NUM_CONV == 0:
            yield (f"MODEL.{key}.NUM_FC is 0; with MODEL.{key}.NUM_CONV 0 it must be at least 1")
    heads = ROI_HEADS_REGISTRY.get(rois.NAME)
    if issubclass(heads, Res5ROIHeads) and len(rois.IN_FEATURES) > 1:
        yield (
            f"MODEL.ROI_HEADS.IN_FEATURES is {rois.IN_FEATURES}; with MODEL.ROI_HEADS.NAME "
            f"{rois.NAME} it must be one level"
        )
    cascade = model.ROI_BOX_CASCADE_HEAD
    if issubclass(heads, CascadeROIHeads) and not (
        model.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG
        and len(cascade.IOUS) == len(cascade.BBOX_REG_WEIGHTS)
        and cascade.IOUS[0] == rois.IOU_THRESHOLDS[0]
    ):
        yield (
            f"MODEL.ROI_HEADS.NAME is {rois.NAME}; it needs MODEL.ROI_BOX_HEAD."
            "CLS_AGNOSTIC_BBOX_REG True, MODEL.ROI_BOX_CASCADE_HEAD.IOUS that begin with "
            "MODEL.ROI_HEADS.IOU_THRESHOLDS, and as many BBOX_REG_WEIGHTS there"
        )


def _per_level(grid: Sequence, count: int) -> list[int]:
    """How many numbers each level has."""
    rows = grid if isinstance(grid[0], list | tuple) else [grid]
    return [len(row) for row in (rows if len(rows) > 1 else [*rows] * count)]
