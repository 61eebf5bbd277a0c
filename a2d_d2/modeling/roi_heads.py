"""The region heads: box, actor and mask of Mask R-CNN (section 3.1), and the action (section 3.2).

Beside the paper's heads stand those of systems it is compared with.

Dimensions: K key frames, C channels, h and w of a pyramid level, R regions, X actors, A actions.
"""

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import (
    ROI_HEADS_REGISTRY,
    StandardROIHeads,
    select_foreground_proposals,
)
from detectron2.modeling.roi_heads.box_head import ROI_BOX_HEAD_REGISTRY
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from a2d_d2.modeling.action_head import build_action_head
from a2d_d2.modeling.classes import model_label_space, pair_index, pair_targets, with_actions
from a2d_d2.utils.registry import registered


def fused_name(level: str) -> str:
    """The name under which the fused features of a pyramid level travel beside the appearance's."""
    return f"fused_{level}"


@ROI_HEADS_REGISTRY.register()
class CanonicalROIHeads(StandardROIHeads):
    """Detectron2's heads, with ``MODEL.ROI_HEADS.CANONICAL_BOX_SIZE`` in their poolers.

    For Detectron2's own meta-architectures; that of the Mask R-CNN baseline (section 4.3).
    """

    @classmethod
    def from_config(cls, cfg, input_shape):
        registered(ROI_BOX_HEAD_REGISTRY, "MODEL.ROI_BOX_HEAD.NAME", cfg.MODEL.ROI_BOX_HEAD.NAME)
        ret = super().from_config(cfg, input_shape)
        for name in ("box_pooler", "mask_pooler"):
            if ret.get(name) is not None:
                ret[name].canonical_box_size = cfg.MODEL.ROI_HEADS.CANONICAL_BOX_SIZE
        return ret


@ROI_HEADS_REGISTRY.register()
class ActorActionROIHeads(CanonicalROIHeads):
    """Mask R-CNN's heads on appearance features, and an action head on fused features.

    RoIAlign-AR pools appearance features for the box, actor and mask heads, RoIAlign-AN the fused
    pyramid for the action head. The classes of Detectron2's heads are the actors.
    """

    region_classes = "actors"

    @configurable
    def __init__(
        self,
        *,
        valid: Tensor,
        train_actor: bool = True,
        action_in_features: list[str] | None = None,
        action_pooler: ROIPooler | None = None,
        action_head: nn.Module | None = None,
        **kwargs,
    ):
        """
        Args:
            valid: (X, A) bool, which actions an actor can do.
            train_actor: whether the box, actor and mask heads are trained.
            action_in_features: names of the fused features; None without an action head.
            action_pooler, action_head: RoIAlign-AN and the head it feeds.
            kwargs: of StandardROIHeads.
        """
        super().__init__(**kwargs)
        self.register_buffer("valid", valid, persistent=False)
        self.train_actor = train_actor
        self.action_on = action_in_features is not None
        if self.action_on:
            self.action_in_features = action_in_features
            self.action_pooler = action_pooler
            self.action_head = action_head

    @classmethod
    def from_config(cls, cfg, input_shape):
        ret = super().from_config(cfg, input_shape)
        ret["valid"] = torch.tensor(model_label_space(cfg).valid)
        ret["train_actor"] = cfg.MODEL.TRAIN_BRANCH != "action"
        ret.update(cls._init_action_head(cfg, input_shape))
        return ret

    @classmethod
    def _init_action_head(cls, cfg, input_shape):
        if cfg.MODEL.TRAIN_BRANCH == "actor":
            return {}
        head = cfg.MODEL.ROI_ACTION_HEAD
        in_features = [fused_name(level) for level in cfg.MODEL.ROI_HEADS.IN_FEATURES]
        return {
            "action_in_features": in_features,
            "action_pooler": ROIPooler(
                output_size=head.POOLER_RESOLUTION,
                scales=[1 / input_shape[name].stride for name in in_features],
                sampling_ratio=head.POOLER_SAMPLING_RATIO,
                pooler_type=head.POOLER_TYPE,
                canonical_box_size=cfg.MODEL.ROI_HEADS.CANONICAL_BOX_SIZE,
            ),
            "action_head": build_action_head(
                cfg,
                ShapeSpec(
                    channels=input_shape[in_features[0]].channels,
                    height=head.POOLER_RESOLUTION,
                    width=head.POOLER_RESOLUTION,
                ),
            ),
        }

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """As StandardROIHeads, for K key frames.

        Args:
            images: the key frames; their sizes alone are read.
            features: appearance features (K, C, h, w) under Detectron2's names, and the fused ones
                under :func:`fused_name`.
            proposals: of each key frame, with ``proposal_boxes`` and ``objectness_logits``.
            targets: in training, with ``gt_boxes``, ``gt_classes`` (actor), ``gt_actions`` and
                ``gt_masks``.

        Returns:
            In training the sampled proposals and the losses; at inference the detections, with
            ``action_scores`` and ``pred_actions`` beside Detectron2's fields, and no losses.
        """
        instances, losses = super().forward(images, features, proposals, targets)
        if self.training:
            losses.update(self._forward_action(features, instances))
        return instances, losses

    def forward_with_given_boxes(
        self, features: dict[str, Tensor], instances: list[Instances]
    ) -> list[Instances]:
        """Adds masks and actions to boxes and actors that are known."""
        instances = super().forward_with_given_boxes(features, instances)
        return self._forward_action(features, instances)

    def _forward_box(self, features, proposals):
        if self.training and not self.train_actor:
            return {}
        return super()._forward_box(features, proposals)

    def _forward_mask(self, features, instances):
        if self.training and not self.train_actor:
            return {}
        return super()._forward_mask(features, instances)

    def _forward_action(self, features: dict[str, Tensor], instances: list[Instances]):
        """The action branch on the foreground regions (training) or the detections (inference).

        Without an action head there is no loss, and every valid action is equally likely.
        """
        if not self.action_on:
            if self.training:
                return {}
            return [with_actions(x, self.valid, self.region_classes) for x in instances]
        if self.training:
            instances, _ = select_foreground_proposals(instances, self.num_classes)
        boxes = [x.proposal_boxes if self.training else x.pred_boxes for x in instances]
        pooled = self.action_pooler([features[name] for name in self.action_in_features], boxes)
        return self.action_head(pooled, instances)


@ROI_HEADS_REGISTRY.register()
class CartesianROIHeads(CanonicalROIHeads):
    """One softmax over the valid pairs and background, and a box for each pair.

    The Cartesian label space (TSCT) that the paper's Table 2 compares with, on the features of the
    action head: both streams, aggregated and fused. There is no action head and no mask head.
    """

    region_classes = "pairs"

    @configurable
    def __init__(self, *, valid: Tensor, **kwargs):
        """
        Args:
            valid: (X, A) bool, which actions an actor can do.
            kwargs: of StandardROIHeads; the classes are the valid pairs.
        """
        super().__init__(**kwargs)
        self.register_buffer("valid", valid, persistent=False)
        self.register_buffer("pair_index", pair_index(valid), persistent=False)

    @classmethod
    def from_config(cls, cfg, input_shape):
        ret = super().from_config(cfg, input_shape)
        ret["valid"] = torch.tensor(model_label_space(cfg).valid)
        return ret

    @classmethod
    def _init_box_head(cls, cfg, input_shape):
        levels = cfg.MODEL.ROI_HEADS.IN_FEATURES
        fused = {level: input_shape[fused_name(level)] for level in levels}
        ret = super()._init_box_head(cfg, fused)
        ret["box_in_features"] = [fused_name(level) for level in levels]
        return ret

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Takes and gives what :meth:`ActorActionROIHeads.forward` does, but for the masks.

        The sampled proposals of the training hold the pair in ``gt_classes``.
        """
        if self.training:
            targets = [pair_targets(x, self.pair_index) for x in targets]
            return super().forward(images, features, proposals, targets)
        instances, losses = super().forward(images, features, proposals)
        return [with_actions(x, self.valid, self.region_classes) for x in instances], losses
