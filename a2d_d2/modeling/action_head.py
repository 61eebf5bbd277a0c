"""Action classification of regions (sections 3.2 to 3.4).

Dimensions: R regions of all key frames, C channels, A actions (|Y|), X actors (|X|).
"""

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import FastRCNNConvFCHead
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from detectron2.utils.registry import Registry
from torch import Tensor, nn

from a2d_d2.modeling.classes import model_label_space, pair_index
from a2d_d2.utils.registry import registered

ROI_ACTION_HEAD_REGISTRY = Registry("ROI_ACTION_HEAD")
ROI_ACTION_HEAD_REGISTRY.__doc__ = """
Registry of action heads, called as ``obj(cfg, input_shape)`` with the shape of a pooled region. The
instance has the ``forward`` that :class:`ActionHead` documents.
"""


def build_action_head(cfg: CfgNode, input_shape: ShapeSpec) -> nn.Module:
    """The action head ``MODEL.ROI_ACTION_HEAD.NAME``."""
    return registered(
        ROI_ACTION_HEAD_REGISTRY, "MODEL.ROI_ACTION_HEAD.NAME", cfg.MODEL.ROI_ACTION_HEAD.NAME
    )(cfg, input_shape)


def predict_actions(instances: list[Instances], logits: Tensor, valid: Tensor) -> list[Instances]:
    """Adds ``action_scores`` and ``pred_actions`` to detections, over valid pairs only.

    Args:
        instances: detections with ``pred_classes``, R in all; changed in place.
        logits: (R, A).
        valid: (X, A) bool, which actions an actor can do.

    Returns:
        ``instances`` with ``action_scores`` (N, A), the softmax over the valid actions of the
        predicted actor and exactly 0 elsewhere, and ``pred_actions`` (N,), their argmax.
    """
    actors = torch.cat([x.pred_classes for x in instances])
    scores = logits.float().masked_fill(~valid[actors], -torch.inf).softmax(dim=1)
    for x, scores_per_image in zip(
        instances, scores.split([len(x) for x in instances]), strict=True
    ):
        x.action_scores = scores_per_image
        x.pred_actions = scores_per_image.argmax(dim=1)
    return instances


@ROI_ACTION_HEAD_REGISTRY.register()
class ActionHead(nn.Module):
    """Classifies the action of each region from its pooled fused features.

    The loss is the action term of equation (1): the negative log likelihood of equation (2),
    averaged over the foreground regions whose actor is not excluded (zero-shot, section 4.4).
    """

    @configurable
    def __init__(
        self,
        *,
        layers: nn.Module,
        input_size: int,
        valid: Tensor,
        excluded_actors: list[int],
    ):
        """
        Args:
            layers: makes R x input_size features of pooled regions.
            valid: (X, A) bool, which actions an actor can do.
            excluded_actors: indices of the actors whose regions do not count in the loss.
        """
        super().__init__()
        self.layers = layers
        self.predictor = nn.Linear(input_size, self.num_outputs(valid))
        nn.init.normal_(self.predictor.weight, std=0.01)
        nn.init.zeros_(self.predictor.bias)
        excluded = torch.zeros(len(valid), dtype=torch.bool)
        excluded[excluded_actors] = True
        self.register_buffer("valid", valid, persistent=False)
        self.register_buffer("excluded", excluded, persistent=False)

    @classmethod
    def from_config(cls, cfg, input_shape):
        head = cfg.MODEL.ROI_ACTION_HEAD
        label_space = model_label_space(cfg)
        layers = FastRCNNConvFCHead(
            input_shape,
            conv_dims=[head.CONV_DIM] * head.NUM_CONV,
            fc_dims=[head.FC_DIM] * head.NUM_FC,
        )
        shape = layers.output_shape
        return {
            "layers": layers,
            "input_size": shape.channels * (shape.height or 1) * (shape.width or 1),
            "valid": torch.tensor(label_space.valid),
            "excluded_actors": [label_space.actor_index(name) for name in head.EXCLUDED_ACTORS],
        }

    @staticmethod
    def num_outputs(valid: Tensor) -> int:
        """Number of outputs of the last layer."""
        return valid.shape[1]

    def action_logits(self, outputs: Tensor, actors: Tensor) -> Tensor:
        """(R, A) logits of the actions of regions whose actors (R,) are known.

        Here the actor changes nothing: actor and action are told apart, each by its own.
        """
        return outputs

    def forward(self, x: Tensor, instances: list[Instances]):
        """
        Args:
            x: (R, C, r, r) pooled features of the regions of ``instances``, in their order.
            instances: in training foreground regions with ``gt_classes`` (actor) and ``gt_actions``
                (an image without any region needs neither); at inference detections with
                ``pred_classes``.

        Returns:
            In training ``{"loss_action": scalar}``; at inference ``instances`` with the fields of
            :func:`predict_actions`.
        """
        outputs = self.predictor(self.layers(x).flatten(1))
        if self.training:
            return {"loss_action": self.loss(outputs, [i for i in instances if len(i)])}
        actors = torch.cat([x.pred_classes for x in instances])
        return predict_actions(instances, self.action_logits(outputs, actors), self.valid)

    def loss(self, outputs: Tensor, instances: list[Instances]) -> Tensor:
        """Mean of equation (2) over the regions that count; a zero with a graph when none does."""
        if not instances:
            return outputs.sum() * 0
        actors = torch.cat([x.gt_classes for x in instances])
        logits = self.action_logits(outputs, actors)
        actions = torch.cat([x.gt_actions for x in instances])
        counted = ~self.excluded[actors]
        count = counted.sum()
        correct = ((logits.argmax(dim=1) == actions) & counted).sum()
        if count > 0:
            get_event_storage().put_scalar("action_head/accuracy", (correct / count).item())
        return F.cross_entropy(logits[counted], actions[counted], reduction="sum") / count.clamp(
            min=1
        )


@ROI_ACTION_HEAD_REGISTRY.register()
class HierarchicalActionHead(ActionHead):
    """The action given the actor: for each actor its own classifier over its valid actions.

    The hierarchical label space (TSHR) that the paper's Table 2 compares with. In training a region
    goes to the classifier of its ground-truth actor, at inference to that of the predicted one. The
    classifier of an excluded actor is therefore never trained: its actions stay at chance.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        columns = pair_index(self.valid)  # (X, A) output of each pair; the last for the invalid
        columns[columns < 0] = self.num_outputs(self.valid)
        self.register_buffer("columns", columns, persistent=False)

    @staticmethod
    def num_outputs(valid: Tensor) -> int:
        """One output for each valid pair."""
        return int(valid.sum())

    def action_logits(self, outputs: Tensor, actors: Tensor) -> Tensor:
        """(R, A) outputs of the classifiers of the given actors; -inf for their invalid actions."""
        return F.pad(outputs, (0, 1), value=-torch.inf).gather(1, self.columns[actors])
