"""Aggregation over time in a stream against whole windows, without the rest of the network."""

from types import SimpleNamespace

import pytest
import torch
from detectron2.layers import ShapeSpec

from a2d_d2.inference.aggregation import (
    HeldFeatures,
    Schedule,
    join_frames,
    split_frames,
    temporal_steps,
)
from a2d_d2.modeling.meta_arch import ActorActionRCNN, FrameFeatures
from a2d_d2.modeling.temporal import TemporalConv

SHAPES = {"p2": ShapeSpec(channels=3, stride=4), "p3": ShapeSpec(channels=3, stride=8)}


def make_model(num_layers, **attributes):
    """The temporal modules of both streams, with large biases, as the network runs them."""
    torch.manual_seed(0)
    temporal = {name: TemporalConv(SHAPES, num_layers=num_layers) for name in FIELDS}
    for module in temporal.values():
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter)
        for name, value in attributes.items():
            setattr(module, name, value)
    model = SimpleNamespace(temporal=temporal)
    model.step_radii = ActorActionRCNN.step_radii.fget(model)
    model.over_time = ActorActionRCNN.over_time.__get__(model)
    return model


FIELDS = ("appearance", "motion")


def make_features(count):
    generator = torch.Generator().manual_seed(1)
    sizes = {"p2": (4, 5), "p3": (2, 3)}
    return FrameFeatures(
        *(
            {level: torch.randn(count, 3, *size, generator=generator) for level, size in x.items()}
            for x in (sizes, sizes)
        )
    )


def whole_window(model, schedule, features, key, count):
    """The output at a key frame, of its window alone."""
    window = schedule.window(key, count)
    neighbours = [-1 if i < 0 else window.frames[i] for i in window.neighbours[0]]
    return model.over_time(features, torch.tensor([neighbours]))


def stream(model, schedule, count, batch_size, after=lambda held: None):
    """Streams ``count`` frames in batches: the output of each key frame."""
    features, held = make_features(count), HeldFeatures(temporal_steps(model, schedule))
    single, outputs, key = split_frames(features), {}, 0
    for start in range(0, count, batch_size):
        seen = min(start + batch_size, count)
        held.add(range(start, seen), single[start:seen])
        end = seen if seen == count else seen - schedule.offsets[-1]
        if keys := range(key, end, schedule.every):
            result = held.aggregate(keys, seen)
            outputs.update(zip(keys, split_frames(result), strict=True))
            expected = {level: x[list(keys)] for level, x in features.appearance.items()}
            assert all(
                torch.equal(x, expected[level]) for level, x in held.appearance(keys).items()
            )
            key = keys[-1] + schedule.every
            held.keep(schedule.keys(key, seen))
        after(held)
    return features, outputs


@torch.no_grad()
@pytest.mark.parametrize("batch_size", [1, 2, 3, 20])
@pytest.mark.parametrize(
    "layers, length, stride, every",
    [
        (0, 5, 1, 1),
        (1, 3, 2, 1),
        (2, 5, 1, 1),
        (2, 5, 2, 1),
        (2, 9, 1, 3),
        (3, 7, 1, 1),
        (3, 7, 2, 3),
        (3, 7, 3, 2),
        # windows shorter than the modules look
        (2, 3, 1, 1),
        (2, 4, 2, 1),
        (3, 6, 1, 2),
        (1, 1, 1, 1),
    ],
)
def test_equals_the_whole_window_of_every_key_frame(layers, length, stride, every, batch_size):
    model = make_model(layers)
    schedule = Schedule(length, stride, layers, every)
    for count in (1, 2, 3, 6, 17):
        features, outputs = stream(model, schedule, count, batch_size)
        assert list(outputs) == list(range(0, count, every))
        for key, output in outputs.items():
            expected = whole_window(model, schedule, features, key, count)
            for name in FIELDS:
                torch.testing.assert_close(getattr(output, name), getattr(expected, name))


@pytest.mark.parametrize(
    "layers, length, attributes, levels",
    [
        (2, 5, {}, 2),
        (2, 9, {}, 2),
        (0, 1, {}, 0),
        (2, 4, {}, 1),  # misses the frame after the next
        (2, 3, {}, 1),
        (2, 5, {"step_radii": None}, 1),  # modules that offer no steps
        (2, 5, {"step_radii": (2,)}, 1),  # one step that looks at all
    ],
)
def test_steps_are_taken_where_they_are_offered_and_no_frame_is_left_out(
    layers, length, attributes, levels
):
    steps = temporal_steps(make_model(layers, **attributes), Schedule(length, 1, layers, 1))
    assert len(steps) == levels


def test_streams_whose_modules_differ_are_run_by_the_window():
    model = make_model(2)
    model.temporal["motion"].step_radii = None
    assert ActorActionRCNN.step_radii.fget(model) is None
    assert ActorActionRCNN.step_radii.fget(SimpleNamespace(temporal=None)) == ()


@torch.no_grad()
@pytest.mark.parametrize(
    "layers, length, stride, most",
    [
        # Before a frame, of each level as many frames as its step looks back and ahead.
        (1, 3, 1, [2, 0]),
        (2, 5, 1, [2, 2, 0]),
        (3, 7, 1, [3, 2, 2, 0]),  # the pyramids of three frames wait for detection
        (2, 5, 2, [4, 4, 0]),
        (2, 3, 1, [2, 0]),
        (0, 1, 1, [0]),
    ],
)
def test_no_more_is_held_than_is_needed(layers, length, stride, most):
    held_at = []
    stream(
        make_model(layers),
        Schedule(length, stride, layers, 1),
        40,
        1,
        lambda held: held_at.append([len(level) for level in held.levels]),
    )
    # The frames that the end of a video leaves are forgotten with it.
    assert held_at[20:-1] == [most] * 19
    assert all(sum(x) <= sum(most) for x in held_at)


def test_a_copy_leaves_the_original_alone():
    held = HeldFeatures(temporal_steps(make_model(1), Schedule(3, 1, 1, 1)))
    held.add(range(3), split_frames(make_features(3)))
    other = held.copy()
    other.aggregate([1], 3)
    assert (len(held), len(other)) == (3, 4)
    other.keep([])
    assert (len(held), len(other)) == (3, 0)


def test_splitting_and_joining():
    features = make_features(3)
    for given in (features, FrameFeatures(features.appearance)):
        frames = split_frames(given)
        assert [x.appearance["p2"].shape[0] for x in frames] == [1, 1, 1]
        joined = join_frames(frames)
        assert torch.equal(joined.appearance["p3"], given.appearance["p3"])
        assert (joined.motion is None) == (given.motion is None)
