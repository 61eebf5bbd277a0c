"""A backbone for small frames, beside Detectron2's own."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, build_resnet_backbone


@BACKBONE_REGISTRY.register()
def build_resnet_fpn_backbone_without_pooling(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """A ResNet FPN of the stages in MODEL.FPN.IN_FEATURES and no further level.

    Detectron2's ``build_resnet_fpn_backbone`` pools p6 from p5 and so needs res5, which sees next
    to nothing of a small frame.
    """
    return FPN(
        bottom_up=build_resnet_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
