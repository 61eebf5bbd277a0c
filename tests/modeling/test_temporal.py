import pytest
import torch
from detectron2.layers import ShapeSpec

from a2d_d2.modeling.temporal import (
    TEMPORAL_REGISTRY,
    TemporalConv,
    build_temporal,
    temporal_radius,
)

SHAPES = {"p2": ShapeSpec(channels=4, stride=4), "p3": ShapeSpec(channels=4, stride=8)}


def features(frames=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "p2": torch.randn(frames, 4, 5, 6, generator=generator),
        "p3": torch.randn(frames, 4, 2, 3, generator=generator),
    }


def all_neighbours(frames, radius):
    positions = torch.arange(frames)[:, None] + torch.arange(-radius, radius + 1)
    positions[(positions < 0) | (positions >= frames)] = -1
    return positions


def random_biases(module):
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return module


@pytest.mark.parametrize("num_layers", [0, 1, 2, 3])
def test_equals_zero_padded_convolution_of_the_whole_video(num_layers):
    frames = features()
    module = random_biases(TemporalConv(SHAPES, num_layers=num_layers))
    result = module(frames, all_neighbours(6, num_layers))
    for level, x in frames.items():
        video = x.transpose(0, 1)[None]  # (1, C, F, h, w)
        for layer in module.levels[level]:
            video = torch.nn.functional.conv3d(video, layer.weight, layer.bias, padding=(1, 0, 0))
        expected = video[0].transpose(0, 1)
        assert result[level].shape == x.shape
        torch.testing.assert_close(result[level], expected)


def test_steps_in_turn_equal_the_whole():
    frames = features()
    module = random_biases(TemporalConv(SHAPES, num_layers=3))
    assert module.step_radii == (1, 1, 1)
    result = frames
    for index in range(3):
        result = module.step(index, result, all_neighbours(6, 1))
    expected = module(frames, all_neighbours(6, 3))
    for level in frames:
        torch.testing.assert_close(result[level], expected[level])


def test_frames_outside_the_receptive_field_change_nothing():
    module = TemporalConv(SHAPES, num_layers=1)
    neighbours = torch.tensor([[1, 2, 3]])
    frames, changed = features(), features(seed=1)
    for level in frames:
        changed[level][1:4] = frames[level][1:4]
    result, other = module(frames, neighbours), module(changed, neighbours)
    for level in frames:
        assert torch.equal(result[level], other[level])
        changed[level][1] += 1
    assert not torch.equal(module(changed, neighbours)["p2"], result["p2"])


def test_absent_frames_hide_even_what_is_not_a_number():
    module = TemporalConv(SHAPES, num_layers=1)
    frames = features()
    for x in frames.values():
        x[0] = torch.nan
    result = module(frames, torch.tensor([[-1, 3, -1]]))
    assert all(x.isfinite().all() for x in result.values())


def test_gradients_reach_every_weight_and_present_frame():
    module = TemporalConv(SHAPES, num_layers=2)
    frames = {level: x.requires_grad_() for level, x in features().items()}
    result = module(frames, torch.tensor([[-1, 0, 1, 2, 3]]))
    sum(x.square().sum() for x in result.values()).backward()
    assert all(p.grad.abs().sum() > 0 for p in module.parameters())
    reached = frames["p2"].grad.flatten(1).abs().sum(dim=1) > 0
    assert reached.tolist() == [True, True, True, True, False, False]


def test_off_is_the_key_frame(small_cfg):
    module = build_temporal(small_cfg("MODEL.TEMPORAL.ENABLED", False), SHAPES)
    frames = features()
    assert not list(module.parameters())
    assert torch.equal(module(frames, torch.tensor([[4], [0]]))["p2"], frames["p2"][[4, 0]])


@pytest.mark.parametrize(
    "options, radius",
    [
        ([], 1),
        (["MODEL.TEMPORAL.NUM_LAYERS", 2], 2),
        (["MODEL.TEMPORAL.ENABLED", False], 0),
        (["MODEL.TRAIN_BRANCH", "actor"], 0),
        (["MODEL.TRAIN_BRANCH", "action"], 1),
    ],
)
def test_radius(small_cfg, options, radius):
    assert temporal_radius(small_cfg(*options)) == radius


def test_modules_plug_in(small_cfg):
    class Wide(TemporalConv):
        @staticmethod
        def config_radius(cfg):
            return 4

    TEMPORAL_REGISTRY._do_register("WideForTest", Wide)
    try:
        cfg = small_cfg("MODEL.TEMPORAL.NAME", "WideForTest")
        assert temporal_radius(cfg) == 4
        assert isinstance(build_temporal(cfg, SHAPES), Wide)
    finally:
        TEMPORAL_REGISTRY._obj_map.pop("WideForTest")
