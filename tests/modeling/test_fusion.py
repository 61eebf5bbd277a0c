import torch
from detectron2.layers import ShapeSpec

from a2d_d2.modeling.fusion import ConcatFusion, build_fusion

SHAPES = {"p2": ShapeSpec(channels=4, stride=4), "p3": ShapeSpec(channels=6, stride=8)}


def pyramid(value):
    return {"p2": torch.full((2, 4, 8, 8), value), "p3": torch.full((2, 6, 4, 4), value)}


def test_streams_are_concatenated_at_each_level(small_cfg):
    fusion = build_fusion(small_cfg(), [SHAPES, SHAPES])
    assert fusion.output_shape["p2"] == ShapeSpec(channels=8, stride=4)
    assert fusion.output_shape["p3"] == ShapeSpec(channels=12, stride=8)
    fused = fusion([pyramid(1.0), pyramid(2.0)])
    assert fused["p2"].shape == (2, 8, 8, 8) and fused["p3"].shape == (2, 12, 4, 4)
    assert fused["p3"][:, :6].eq(1).all() and fused["p3"][:, 6:].eq(2).all()


def test_one_stream_passes_through():
    fusion = ConcatFusion([SHAPES])
    assert fusion.output_shape == SHAPES
    assert torch.equal(fusion([pyramid(3.0)])["p2"], pyramid(3.0)["p2"])
