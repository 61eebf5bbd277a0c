"""The cost of streaming beside its parts and other ways."""

import json
import os
from types import SimpleNamespace

import pytest

from a2d_d2.benchmark import stream
from a2d_d2.benchmark.stream import (
    Detections,
    SteadyState,
    measure_stream,
    stream_lines,
    stream_seconds,
    summarise,
)
from a2d_d2.modeling.temporal import TemporalConv

PARTS = {
    "decode": [1.0, 2.0, 1.0],
    "flow_and_resize": [2.0, 2.0, 2.0],
    "normalise": [1.0, 1.0, 1.0],
    "appearance_backbone": [10.0, 20.0, 10.0],
    "flow_backbone": [10.0, 20.0, 12.0],
    "temporal_and_fusion": [4.0, 8.0, 5.0],
    "detection": [6.0, 12.0, 3.0],
}
WAYS = {
    "streaming": [33.0, 90.0, 33.0],  # to its parts: 1.1, 1.5, 1.1
    "naive": [132.0, 450.0, 165.0],  # to streaming: 4, 5, 5
    "mask_rcnn": [16.5, 30.0, 11.0],  # streaming to it: 2, 3, 3
}
ARGUMENTS = {"height": 64, "width": 80, "frames": 4, "repeats": 1, "batch_size": 2}


def test_figures_by_hand():
    figures = summarise(PARTS | WAYS, window=5)
    medians = {name: x["median"] for name, x in figures["seconds"].items()}
    assert medians == {
        "decode": 1,
        "flow_and_resize": 2,
        "normalise": 1,
        "input": 4,  # 4, 5, 4
        "appearance_backbone": 10,
        "flow_backbone": 12,
        "temporal_and_fusion": 5,
        "detection": 6,
        "network": 30,  # 30, 60, 30
        "streaming": 33,
        "naive": 165,
        "mask_rcnn": 16.5,
    }
    assert figures["seconds"]["network"]["repeats"] == [30, 60, 30]
    ratios = figures["ratios"]
    assert ratios["streaming_to_parts"] == {"median": 1.1, "at_most": 1.15, "met": True}
    within = [33 / 34, 90 / 65, 33 / 34]
    assert ratios["streaming_to_parts_and_input"]["median"] == pytest.approx(sorted(within)[1])
    assert ratios["naive_to_streaming"] == {"median": 5, "limit": 5}
    assert ratios["streaming_to_mask_rcnn"] == {"median": 3, "at_most": 2.2, "met": False}


def test_a_model_without_flow_has_no_such_part():
    seconds = PARTS | WAYS
    del seconds["flow_backbone"]
    figures = summarise(seconds, window=3)
    assert figures["seconds"]["network"]["repeats"] == [20, 40, 18]


# ---------------------------------------------------------------- streaming


def make_predictor(batch_size=4, reach=2):
    offsets = tuple(range(-reach, reach + 1))
    schedule = SimpleNamespace(offsets=offsets)
    return SimpleNamespace(batch_size=batch_size, look_ahead=reach, schedule=schedule)


@pytest.mark.parametrize(
    "batch_size, reach, frames, expected",
    [
        # Batch 1 is of frames 4 to 7: it completes the windows of 2 to 5. It and 8 frames are 16,
        # and two batches may be prepared ahead.
        (4, 2, 8, SteadyState(2, 8, 25)),
        # Batch 4 completes the window of frame 2.
        (1, 2, 3, SteadyState(2, 3, 11)),
        # Batch 1 completes the window of frame 1, which is cut off at the front; batch 2 is the
        # first after that.
        (3, 2, 3, SteadyState(4, 3, 19)),
        (4, 0, 4, SteadyState(0, 4, 17)),
    ],
)
def test_where_the_clock_starts(batch_size, reach, frames, expected):
    assert SteadyState.of(make_predictor(batch_size, reach), frames) == expected


def test_streaming_is_measured_from_batch_to_batch():
    """The first results come slowly, then two frames every 3 seconds."""
    now, closed = [100.0], []

    def predict(frames):
        assert frames == "video"
        try:
            for index in range(20):
                if index % 2 == 0:
                    now[0] += 50.0 if index <= 2 else 3.0
                yield SimpleNamespace(index=index, instances=[0] * 7)
        finally:
            closed.append(True)

    detections = Detections(7)
    predictor, steady = SimpleNamespace(predict=predict), SteadyState(2, 4, 20)
    seconds = stream_seconds(predictor, "video", steady, detections, clock=lambda: now[0])
    assert seconds == 1.5
    assert closed
    detections.check(["streaming"])


def test_ways_with_other_detections_are_not_compared():
    detections = Detections(3)
    detections.note("naive", [[0] * 3, [0] * 3])
    detections.check(["naive"])
    detections.note("naive", [[0]])
    with pytest.raises(ValueError, match="naive found 1 to 3 instances a frame instead of 3; set"):
        detections.check(["naive"])
    with pytest.raises(ValueError, match="streaming found 0 to 0 instances"):
        detections.check(["streaming"])


# ---------------------------------------------------------------- the measurement


def test_every_way_is_measured(small_cfg, monkeypatch):
    """With a clock that counts calls, each way takes one unit for all frames of a repeat."""
    ticks = iter(range(10**6))
    monkeypatch.setattr(stream, "seconds_of", lambda function: function() and next(ticks) * 0 + 8.0)
    cfg = small_cfg("INPUT.MIN_SIZE_TEST", 48, "TEST.DETECTIONS_PER_IMAGE", 3)
    result = measure_stream(cfg, **ARGUMENTS | {"repeats": 2}, progress=False)
    seconds = result["seconds"]
    for name in [*PARTS, "naive", "mask_rcnn"]:
        assert seconds[name]["repeats"] == [2.0, 2.0]
    assert len(seconds["streaming"]["repeats"]) == 2
    assert seconds["streaming"]["median"] > 0
    assert seconds["network"]["median"] == 8
    assert result["frames"] == {
        "height": 64,
        "width": 80,
        "measured": 4,
        "batch_size": 2,
        "detections": 3,
    }
    assert (result["model"]["window"], result["model"]["computed"]) == (5, 3)
    assert result["ratios"]["naive_to_streaming"]["limit"] == 3


@pytest.mark.parametrize("length, rows", [(5, 2 * [2, 2]), (3, [])])
def test_temporal_modules_do_once_a_frame_what_streaming_does(small_cfg, monkeypatch, length, rows):
    """Both steps of both streams on each of 2 frames; the whole window where it is cut off."""
    measured, steps, windows = [False], [], []
    plain = {name: getattr(TemporalConv, name) for name in ("step", "forward")}

    def step(self, index, features, neighbours):
        steps.extend([len(neighbours)] * measured[0])
        return plain["step"](self, index, features, neighbours)

    def forward(self, features, neighbours):
        windows.extend([len(neighbours)] * measured[0])
        return plain["forward"](self, features, neighbours)

    def interleave(ways, repeats, **arguments):
        for name, way in ways.items():
            measured[0] = name == "temporal_and_fusion"
            way()
        measured[0] = False
        raise Done

    class Done(Exception):
        pass

    monkeypatch.setattr(TemporalConv, "step", step)
    monkeypatch.setattr(TemporalConv, "forward", forward)
    monkeypatch.setattr(stream, "interleave", interleave)
    options = ["INPUT.MIN_SIZE_TEST", 64, "TEST.DETECTIONS_PER_IMAGE", 3]
    options += ["MODEL.TEMPORAL.NUM_LAYERS", 2, "INPUT.CLIP.LENGTH", length]
    with pytest.raises(Done):
        measure_stream(small_cfg(*options), **ARGUMENTS | {"frames": 2}, progress=False)
    assert steps == rows
    assert windows == ([] if rows else [2, 2])


@pytest.mark.parametrize(
    "options, missing",
    [
        (["MODEL.FLOW.ENABLED", False], {"flow_backbone"}),
        (["MODEL.TRAIN_BRANCH", "actor"], {"flow_backbone"}),
        (["MODEL.TEMPORAL.ENABLED", False], set()),
        (["INPUT.CLIP.LENGTH", 3, "MODEL.TEMPORAL.NUM_LAYERS", 2, "INPUT.CLIP.STRIDE", 2], set()),
    ],
)
def test_other_systems(small_cfg, options, missing):
    cfg = small_cfg("INPUT.MIN_SIZE_TEST", 64, "TEST.DETECTIONS_PER_IMAGE", 3, *options)
    result = measure_stream(cfg, **ARGUMENTS, progress=False)
    assert set(PARTS | WAYS) - set(result["seconds"]) == missing
    assert all(x["median"] > 0 for x in result["seconds"].values())


@pytest.mark.parametrize(
    "options, arguments, message",
    [
        ([], {"frames": 0}, "--frames is 0; it must be at least 1"),
        ([], {"repeats": -1}, "--repeats is -1; it must be at least 1"),
        ([], {"batch_size": 0}, "--batch-size is 0; it must be at least 1"),
        ([], {"frames": 3}, "--frames is 3; it must be a multiple of --batch-size"),
        (
            ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN"],
            {},
            "GeneralizedRCNN: only streaming of a model of clips is measured",
        ),
        (["MODEL.MASK_ON", False], {}, "no masks of its own; measure one with MODEL.MASK_ON True"),
        (["TEST.DETECTIONS_PER_IMAGE", 10000], {}, "instances a frame instead of 10000; set TEST"),
    ],
)
def test_wrong_values_are_named(small_cfg, options, arguments, message):
    cfg = small_cfg("INPUT.MIN_SIZE_TEST", 64, *options)
    with pytest.raises(ValueError, match=message):
        measure_stream(cfg, **ARGUMENTS | arguments, progress=False)


# ---------------------------------------------------------------- the command


def test_the_command_prints_and_writes_its_figures(benchmark, tmp_path):
    path = tmp_path / "figures" / "stream.json"
    status, printed, _ = benchmark(
        *("stream", "--frames", "2", "--repeats", "2", "--batch-size", "2", "--threads", "1"),
        *("--json", str(path), "MODEL.TEMPORAL.NUM_LAYERS", "2", "INPUT.CLIP.LENGTH", "5"),
    )
    assert status == 0
    result = json.loads(path.read_text())
    assert result["options"][:2] == ["MODEL.TEMPORAL.NUM_LAYERS", "2"]
    assert result["config_file"].endswith("config.yaml")
    assert result["model"]["computed"] == 5
    assert result["machine"]["threads"] == 1
    repeats = {k: v for k, v in result["seconds"].items() if k not in ("input", "network")}
    seconds = {name: x["repeats"] for name, x in repeats.items()}
    again = summarise(seconds, window=5)
    assert json.loads(json.dumps(again)) == {k: result[k] for k in again}
    assert printed.splitlines() == stream_lines(result)
    assert "ResNet-18, T = 5 (5 frames computed), temporal radius 2" in printed
    assert "2 at once, 3 detections on every frame in every way" in printed
    assert "(goal: at most 1.15; " in printed
    assert "(limit: near 5)" in printed
    assert "(goal: at most 2.2; " in printed


def test_lines_by_hand():
    facts = {
        "machine": {"device": "CPU", "cores": 2, "threads": 1}
        | dict.fromkeys(("torch", "detectron2", "opencv"), "1.0"),
        "model": {
            "depth": 101,
            "window": 5,
            "computed": 5,
            "temporal_radius": 2,
            "parameters_millions": 1.0,
        },
        "frames": {"height": 1, "width": 2, "measured": 8, "batch_size": 4, "detections": 100},
        "repeats": 3,
    }
    lines = stream_lines(facts | summarise(PARTS | WAYS, window=5))
    assert any("CPU, 2 cores, 1 threads; torch 1.0, Detectron2 1.0" in line for line in lines)
    rows = {line[:64].strip(): line[64:].split(maxsplit=1) for line in lines}
    assert rows["sum of these parts"] == ["30000.0"]
    assert rows["flow backbone"] == ["12000.0"]
    assert rows["naive: the whole window of every frame"] == ["165000.0"]
    parts = rows["streaming / sum of the network's parts"]
    assert parts == ["1.10", "(goal: at most 1.15; met)"]
    assert rows["naive / streaming"] == ["5.00", "(limit: near 5)"]
    assert rows["streaming / Mask R-CNN"] == ["3.00", "(goal: at most 2.2; missed)"]


def test_a_file_that_cannot_be_written_whole_is_left_as_it_was(benchmark, tmp_path, monkeypatch):
    folder = tmp_path / "figures"
    folder.mkdir()
    path = folder / "stream.json"
    path.write_text("old")
    plain_replace = os.replace

    def replace(source, target):
        if target != path:
            return plain_replace(source, target)
        assert json.loads(source.read_text())["seconds"]  # whole before it takes the place
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", replace)
    arguments = ("--frames", "1", "--repeats", "1", "--batch-size", "1", "--json", str(path))
    status, printed, error = benchmark("stream", *arguments)
    assert (status, error) == (2, ["error: no space left"])
    assert "streaming / Mask R-CNN" in printed
    assert path.read_text() == "old"
    assert os.listdir(folder) == ["stream.json"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--frames", "5"), "error: --frames is 5; it must be a multiple of --batch-size"),
        (("--threads", "0"), "error: --threads is 0; it must be at least 1"),
        (
            ("MODEL.NO_SUCH_KEY", "1"),
            "error: bad option: there is no key MODEL.NO",
        ),
        (("--no-such-option",), "benchmark.py: error: unrecognized arguments: --no-such-option"),
    ],
)
def test_a_wrong_argument_is_one_line(benchmark, arguments, message):
    status, _, (error,) = benchmark("stream", *arguments)
    assert status == 2
    assert error.startswith(message)
