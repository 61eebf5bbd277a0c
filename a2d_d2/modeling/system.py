"""Which system a configuration describes: the paper's model, a part of it, or one it is compared
with (Tables 2 and 3)."""

from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, ROI_HEADS_REGISTRY

from a2d_d2.modeling.classes import CLASSES
from a2d_d2.utils.registry import registered

TRAIN_BRANCHES = ("joint", "actor", "action", "separate")


def takes_clips(cfg: CfgNode) -> bool:
    """Whether the meta-architecture takes clips; Detectron2's own take single frames.

    It is the attribute ``takes_clips`` of its class, False where there is none.

    Raises:
        ValueError: there is no such meta-architecture.
    """
    arch = cfg.MODEL.META_ARCHITECTURE
    return getattr(
        registered(META_ARCH_REGISTRY, "MODEL.META_ARCHITECTURE", arch), "takes_clips", False
    )


def predicts_actions(cfg: CfgNode) -> bool:
    """Whether the model tells actions apart; otherwise all valid ones are equally likely."""
    if cfg.MODEL.CLASSES == "pairs":
        return True
    return takes_clips(cfg) and cfg.MODEL.TRAIN_BRANCH != "actor"


def check_system(cfg: CfgNode) -> None:
    """Refuses settings that no system has, so that none is silently without effect.

    Region heads for clips say what their classes are in the attribute ``region_classes`` of their
    class, one of :data:`CLASSES`.

    Raises:
        ValueError: names the key, and what to set instead.
    """
    model = cfg.MODEL
    for key, values in (("CLASSES", CLASSES), ("TRAIN_BRANCH", TRAIN_BRANCHES)):
        if model[key] not in values:
            raise ValueError(
                f"MODEL.{key} is {model[key]!r}; it must be one of {', '.join(values)}"
            )
    registered(BACKBONE_REGISTRY, "MODEL.BACKBONE.NAME", model.BACKBONE.NAME)
    arch, heads = model.META_ARCHITECTURE, model.ROI_HEADS.NAME
    heads_class = registered(ROI_HEADS_REGISTRY, "MODEL.ROI_HEADS.NAME", heads)
    classes = getattr(heads_class, "region_classes", None)
    if not takes_clips(cfg):
        if classes is not None:
            raise ValueError(
                f"MODEL.ROI_HEADS.NAME {heads} needs clips, and MODEL.META_ARCHITECTURE {arch} "
                "takes single frames; use CanonicalROIHeads there"
            )
        if model.BACKBONE.RECOMPUTE:
            raise ValueError(
                f"MODEL.BACKBONE.RECOMPUTE is not read by MODEL.META_ARCHITECTURE {arch}; set it "
                "to False, and SOLVER.ACCUMULATE above 1 to save memory"
            )
        if any(weight != 1 for weight in model.LOSS_WEIGHTS.values()):
            raise ValueError(
                f"MODEL.LOSS_WEIGHTS is not read by MODEL.META_ARCHITECTURE {arch}; leave it at 1 "
                "and set MODEL.RPN.LOSS_WEIGHT or MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT"
            )
    elif classes is None:
        raise ValueError(
            f"MODEL.ROI_HEADS.NAME {heads} knows no actions; with MODEL.META_ARCHITECTURE {arch} "
            "use ActorActionROIHeads or CartesianROIHeads"
        )
    elif classes != model.CLASSES:
        raise ValueError(
            f"MODEL.CLASSES is {model.CLASSES!r}, but the classes of MODEL.ROI_HEADS.NAME {heads} "
            f"are {classes}; set MODEL.CLASSES {classes}"
        )
    elif classes == "pairs" and model.MASK_ON:
        raise ValueError(
            f"MODEL.MASK_ON must be False: MODEL.ROI_HEADS.NAME {heads} has no mask head"
        )
    if classes == "actors":
        return
    if model.TRAIN_BRANCH != "joint":
        raise ValueError(
            f"MODEL.TRAIN_BRANCH is {model.TRAIN_BRANCH!r}, but MODEL.ROI_HEADS.NAME {heads} has "
            "no branches to train apart; set it to joint"
        )
    if model.ROI_ACTION_HEAD.EXCLUDED_ACTORS:
        raise ValueError(
            "MODEL.ROI_ACTION_HEAD.EXCLUDED_ACTORS must be empty: MODEL.ROI_HEADS.NAME "
            f"{heads} has no action head, whose labels alone could be left out"
        )
