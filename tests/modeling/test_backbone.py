import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone

STAGES = ["res2", "res3", "res4"]


def test_three_levels_and_nothing_beyond(small_cfg):
    cfg = small_cfg(
        *("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone_without_pooling"),
        *("MODEL.RESNETS.OUT_FEATURES", STAGES, "MODEL.FPN.IN_FEATURES", STAGES),
    )
    backbone = build_backbone(cfg, ShapeSpec(channels=3))
    shapes = backbone(torch.zeros(2, 3, 64, 96))
    assert {name: tuple(x.shape) for name, x in shapes.items()} == {
        "p2": (2, 16, 16, 24),
        "p3": (2, 16, 8, 12),
        "p4": (2, 16, 4, 6),
    }
    assert backbone.size_divisibility == 16
    assert not any("res5" in name for name in backbone.state_dict())
