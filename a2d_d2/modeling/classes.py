"""What the classes of the region heads stand for (``MODEL.CLASSES``): actors, or valid pairs.

Dimensions: N instances, X actors, A actions, P valid pairs of them, in the label space's order.
"""

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.structures import Instances
from torch import Tensor

from a2d_d2.label_space import LabelSpace

CLASSES = ("actors", "pairs")


def num_region_classes(label_space: LabelSpace, classes: str) -> int:
    """X for "actors", P for "pairs"."""
    return len(label_space.valid_pairs) if classes == "pairs" else label_space.num_actors


def model_label_space(cfg: CfgNode) -> LabelSpace:
    """The label space of ``cfg``, whose sizes the model's class counts must be.

    Raises:
        ValueError: they are not.
    """
    label_space = LabelSpace.load(cfg.DATASETS.LABEL_SPACE)
    expected = (num_region_classes(label_space, cfg.MODEL.CLASSES), label_space.num_actions)
    counts = (cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.ROI_ACTION_HEAD.NUM_CLASSES)
    if expected != counts:
        raise ValueError(
            f"MODEL.ROI_HEADS.NUM_CLASSES and MODEL.ROI_ACTION_HEAD.NUM_CLASSES are {counts}, but "
            f"DATASETS.LABEL_SPACE has {expected[0]} {cfg.MODEL.CLASSES} and {expected[1]} "
            "actions; a2d_d2.config.setup_cfg sets both"
        )
    return label_space


def pair_index(valid: Tensor) -> Tensor:
    """(X, A) int64: the index of each pair of ``valid`` (X, A) bool, -1 where it is not valid."""
    index = torch.full_like(valid, -1, dtype=torch.int64)
    index[valid] = torch.arange(int(valid.sum()), device=valid.device)
    return index


def pair_targets(targets: Instances, index: Tensor) -> Instances:
    """Ground truth of actors and actions as that of pairs.

    Args:
        targets: with ``gt_classes`` (actor) and ``gt_actions``; left as it is.
        index: (X, A), of :func:`pair_index`.

    Returns:
        the same instances with the pair in ``gt_classes`` and no ``gt_actions``.
    """
    fields = dict(targets.get_fields())
    fields["gt_classes"] = index[fields["gt_classes"], fields.pop("gt_actions")]
    return Instances(targets.image_size, **fields)


def with_actions(instances: Instances, valid: Tensor, classes: str) -> Instances:
    """Detections that have no action scores, as detections of actors that have them.

    A pair (k, a) of score s becomes the actor k with score s and all of its action score at a, so
    that the score of the pair is s. For an actor every valid action is equally likely.

    Args:
        instances: with ``pred_classes``; left as it is.
        valid: (X, A) bool, which actions an actor can do; on the device of ``instances``.
        classes: what ``pred_classes`` holds, "actors" or "pairs".

    Returns:
        the same instances with the actor in ``pred_classes``, ``action_scores`` (N, A) and
        ``pred_actions`` (N,), their argmax.
    """
    fields = dict(instances.get_fields())
    if classes == "pairs":
        actors, actions = valid.nonzero()[fields["pred_classes"]].unbind(dim=1)
        fields["pred_classes"] = actors
        scores = F.one_hot(actions, valid.shape[1]).float()
    else:
        scores = valid[fields["pred_classes"]].float()
        scores = scores / scores.sum(dim=1, keepdim=True)
    return Instances(
        instances.image_size, **fields, action_scores=scores, pred_actions=scores.argmax(dim=1)
    )
