"""The network of the paper (section 3) as a Detectron2 meta-architecture.

Importing this package registers its modules; ``detectron2.modeling.build_model(cfg)`` builds them.
"""

from a2d_d2.modeling.action_head import (
    ROI_ACTION_HEAD_REGISTRY,
    ActionHead,
    HierarchicalActionHead,
)
from a2d_d2.modeling.backbone import build_resnet_fpn_backbone_without_pooling
from a2d_d2.modeling.fusion import FUSION_REGISTRY, ConcatFusion
from a2d_d2.modeling.meta_arch import ActorActionRCNN, FrameFeatures
from a2d_d2.modeling.roi_heads import (
    ActorActionROIHeads,
    CanonicalROIHeads,
    CartesianROIHeads,
)
from a2d_d2.modeling.temporal import TEMPORAL_REGISTRY, TemporalConv, temporal_radius

__all__ = [
    "FUSION_REGISTRY",
    "ROI_ACTION_HEAD_REGISTRY",
    "TEMPORAL_REGISTRY",
    "ActionHead",
    "ActorActionRCNN",
    "ActorActionROIHeads",
    "CanonicalROIHeads",
    "CartesianROIHeads",
    "ConcatFusion",
    "FrameFeatures",
    "HierarchicalActionHead",
    "TemporalConv",
    "build_resnet_fpn_backbone_without_pooling",
    "temporal_radius",
]
