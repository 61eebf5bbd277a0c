"""Repeats, ratios, memory and the models of all measurements."""

import functools
import os
import time

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from a2d_d2.benchmark.common import (
    check_counts,
    interleave,
    kept_bytes,
    machine,
    machine_line,
    mask_rcnn_cfg,
    median_seconds,
    moving_frames,
    peak_bytes,
    processor_seconds,
    random_model,
    ratio,
    reset_peaks,
    seconds_of,
)
from a2d_d2.benchmark.memory import in_new_process

BOTTLENECKS = [
    *("MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.RES2_OUT_CHANNELS", 16),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.WIDTH_PER_GROUP", 8),
]


def test_time_is_that_of_the_call():
    times = iter([10.0, 13.5])
    events = []

    def clock():
        events.append("clock")
        return next(times)

    assert seconds_of(lambda: events.append("call"), clock) == 3.5
    assert events == ["clock", "call", "clock"]


def test_processor_seconds_are_those_of_the_process():
    before, own = processor_seconds(os.getpid()), time.process_time()
    while time.process_time() < own + 0.3:
        pass
    assert 0.2 < processor_seconds(os.getpid()) - before < 0.6


def test_the_first_call_warms_up():
    calls = []
    assert median_seconds(lambda: calls.append(0), 3) >= 0
    assert len(calls) == 4


def test_ways_are_measured_in_turns():
    order = []

    def way(name):
        return lambda: order.append(name) or float(len(order))

    ways = {name: way(name) for name in "abc"}
    seconds = interleave(ways, 3, description="", progress=False)
    assert order == list("abccbaabc")
    assert seconds == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}


def test_a_ratio_is_the_median_within_repeats():
    # 2, 3 and 1; of the medians it would be 4 / 4
    assert ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == 2


def test_peak_memory_is_not_that_of_the_process_that_started_it():
    np.ones(2**26)  # half a GiB, touched and given back
    peak = peak_bytes()
    assert peak > 2**29
    assert 2**26 < in_new_process(peak_bytes) < peak - 2**28


def test_a_peak_starts_anew():
    np.ones(2**26)  # half a GiB, touched and given back
    before = peak_bytes()
    reset_peaks()
    assert peak_bytes() < before - 2**28


def test_what_autograd_keeps_is_without_the_parameters():
    model = torch.nn.Sequential(torch.nn.Linear(50, 20, bias=False), torch.nn.Sigmoid())
    x = torch.ones(10, 50)
    assert kept_bytes(lambda: model(x), model) == 4 * 10 * (50 + 20)


def test_the_machine_has_a_name():
    found = machine()
    assert found["processor"] and found["device"]
    old = {name: x for name, x in found.items() if name != "processor"} | {"device": "x86_64"}
    assert machine_line(old).startswith("x86_64, ")
    assert machine_line(old | {"processor": "EPYC"}).startswith("x86_64, EPYC, ")
    assert machine_line(old | {"processor": "x86_64"}) == machine_line(old)


def test_a_process_that_dies_is_said():
    with pytest.raises(OSError, match="the process that was measured died"):
        in_new_process(functools.partial(os._exit, 1))


def test_frames_move():
    frames = moving_frames(8, 12)
    first, second = next(frames), next(frames)
    assert first.shape == (8, 12, 3) and first.dtype == np.uint8
    assert first.min() == 0 and first.max() == 255
    np.testing.assert_array_equal(second[1:, 2:], first[:-1, :-2])
    np.testing.assert_array_equal(next(moving_frames(8, 12)), first)


def test_a_random_model_is_reproducible_with_small_residuals(small_cfg):
    cfg = small_cfg("MODEL.FLOW.ENABLED", False, *BOTTLENECKS)
    state = torch.get_rng_state()
    model = random_model(cfg)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    torch.manual_seed(0)
    plain = dict(build_model(cfg).named_parameters())
    residuals = [name for name in plain if name.endswith("conv3.weight")]
    assert len(residuals) == 16
    for name, parameter in model.named_parameters():
        factor = 0.1 if name in residuals else 1
        torch.testing.assert_close(parameter, plain[name] * factor)


def test_mask_rcnn_has_the_same_backbone(small_cfg):
    cfg = small_cfg("MODEL.MASK_ON", False)
    baseline = build_model(mask_rcnn_cfg(cfg))
    assert type(baseline).__name__ == "GeneralizedRCNN"
    assert baseline.roi_heads.mask_on
    assert cfg.MODEL.META_ARCHITECTURE == "ActorActionRCNN" and not cfg.MODEL.MASK_ON
    shapes = {name: x.shape for name, x in build_model(cfg).backbone.state_dict().items()}
    assert {name: x.shape for name, x in baseline.backbone.state_dict().items()} == shapes


def test_numbers_below_one_are_named():
    check_counts(frames=1)
    with pytest.raises(ValueError, match="--batch-size is 0; it must be at least 1"):
        check_counts(frames=3, batch_size=0)
