"""Streaming against running the model on every clip on its own."""

import itertools
import threading
import weakref
from collections import Counter
from dataclasses import fields

import cv2
import numpy as np
import pytest
import torch

from a2d_d2.data.flow import compute_flow
from a2d_d2.inference import frames as frames_module
from a2d_d2.inference import streaming
from a2d_d2.inference.check import ClipWise, check_video
from a2d_d2.inference.streaming import StreamingPredictor
from a2d_d2.modeling.temporal import TemporalConv

HEIGHT, WIDTH = 64, 80
# Frames are shrunk, and padded after that; a second level of time by default.
OPTIONS = [
    *("INPUT.MIN_SIZE_TEST", 48, "INPUT.CLIP.LENGTH", 5, "MODEL.TEMPORAL.NUM_LAYERS", 2),
    *("TEST.DETECTIONS_PER_IMAGE", 8),
]
MASK_RCNN = [
    *("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.ROI_HEADS.NAME", "CanonicalROIHeads"),
    *("MODEL.CLASSES", "pairs", "MODEL.ROI_HEADS.NUM_CLASSES", 43),
    *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
]
TSCT = [
    *("MODEL.ROI_HEADS.NAME", "CartesianROIHeads", "MODEL.MASK_ON", False),
    *("MODEL.CLASSES", "pairs", "MODEL.ROI_HEADS.NUM_CLASSES", 43),
    *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
]
GRABCUT = ["MODEL.MASK_ON", False, "MODEL.SEGMENTER.NAME", "GrabCutSegmenter"]


def make_frames(count, height=HEIGHT, width=WIDTH):
    """Frames of a blurred pattern that moves, each different from all others."""
    generator = np.random.default_rng(0)
    pattern = generator.integers(0, 256, (2 * height, 2 * width, 3), dtype=np.uint8)
    pattern = cv2.GaussianBlur(pattern, (0, 0), 2)
    pattern = cv2.normalize(pattern, None, 0, 255, cv2.NORM_MINMAX)
    for i in range(count):
        frame = np.roll(pattern, (i, 2 * i), axis=(0, 1))[:height, :width].copy()
        frame[:4] = i
        yield frame


def timed(frames):
    return ((i / 10, frame) for i, frame in enumerate(frames))


@pytest.fixture
def video(tmp_path):
    """video(frames): the path of a video."""

    def make(count):
        path = tmp_path / f"{count}.mp4"
        size = (WIDTH, HEIGHT)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, size)
        for frame in make_frames(count):
            writer.write(frame)
        writer.release()
        return path

    return make


@pytest.fixture
def streaming_cfg(small_cfg):
    return lambda *options: small_cfg(*OPTIONS, *options)


@pytest.fixture
def make_predictor(streaming_cfg, random_weights):
    """make_predictor("KEY", value, ..., batch_size=..., every=...)."""

    def make(*options, **arguments):
        return StreamingPredictor.from_config(streaming_cfg(*options), **arguments)

    return make


def assert_same_results(first, second):
    assert len(first) == len(second)
    for x, y in zip(first, second, strict=True):
        assert (x.index, x.time) == (y.index, y.time)
        np.testing.assert_array_equal(x.frame, y.frame)
        np.testing.assert_array_equal(x.flow, y.flow)
        assert (x.instances is None) == (y.instances is None)
        if x.instances is not None:
            torch.testing.assert_close(x.instances.scores, y.instances.scores)
            torch.testing.assert_close(x.instances.action_scores, y.instances.action_scores)


def background_threads():
    return [x for x in threading.enumerate() if x.name.startswith("a2d_d2-ahead")]


# ---------------------------------------------------------------- equal to every clip on its own


@pytest.mark.parametrize(
    "options, count, arguments",
    [
        ([], 8, {}),
        ([], 8, {"batch_size": 1}),
        ([], 8, {"batch_size": 3}),
        ([], 8, {"batch_size": 50}),
        # videos shorter than the window
        ([], 1, {}),
        ([], 2, {"batch_size": 1}),
        ([], 4, {}),
        # the temporal module reaches out of the window; windows without a middle
        (["INPUT.CLIP.LENGTH", 3, "MODEL.TEMPORAL.NUM_LAYERS", 2], 6, {}),
        (["INPUT.CLIP.LENGTH", 1, "MODEL.TEMPORAL.NUM_LAYERS", 1], 3, {"batch_size": 2}),
        (["INPUT.CLIP.LENGTH", 4], 7, {"batch_size": 2}),
        (["INPUT.CLIP.LENGTH", 2], 5, {}),
        # and less far than the window
        (["INPUT.CLIP.LENGTH", 9, "MODEL.TEMPORAL.NUM_LAYERS", 1], 6, {}),
        (["INPUT.CLIP.STRIDE", 2], 11, {"batch_size": 3}),
        (["INPUT.CLIP.STRIDE", 4, "MODEL.TEMPORAL.NUM_LAYERS", 1], 7, {}),
        # layers of time computed once a frame, at the ends of short videos
        *((["INPUT.CLIP.STRIDE", 2], count, {"batch_size": 2}) for count in range(1, 7)),
        (["INPUT.CLIP.STRIDE", 3, "INPUT.CLIP.LENGTH", 3], 6, {"batch_size": 1}),
        # detection on some frames
        ([], 9, {"every": 2}),
        ([], 10, {"every": 3, "batch_size": 2}),
        (["MODEL.TEMPORAL.NUM_LAYERS", 1], 12, {"every": 5}),
        (["INPUT.CLIP.STRIDE", 2], 10, {"every": 3, "batch_size": 1}),
        ([], 4, {"every": 7}),
        # other systems
        (["MODEL.FLOW.ENABLED", False], 6, {}),
        (["MODEL.TEMPORAL.ENABLED", False], 4, {"batch_size": 3}),
        (["MODEL.TRAIN_BRANCH", "actor"], 4, {"batch_size": 3}),
        (["MODEL.MASK_ON", False], 5, {}),
        (["INPUT.FLOW_METHOD", "farneback"], 4, {}),
        (TSCT, 5, {"every": 2}),
        (MASK_RCNN, 4, {"batch_size": 3}),
        (GRABCUT, 3, {}),
    ],
)
def test_equals_clip_wise(make_predictor, streaming_cfg, video, options, count, arguments):
    path = video(count)
    predictor = make_predictor(*options, **arguments)
    clip_wise = ClipWise(streaming_cfg(*options), predictor)
    differences = list(check_video(path, predictor, clip_wise))
    assert len(differences) == -(-count // arguments.get("every", 1))
    assert all(x.instances > 0 for x in differences)
    assert max(max(x.scores, x.pixels) for x in differences) < 1e-4
    assert max(x.masks for x in differences) < 1e-3  # rounding may flip some of 5,120 pixels


def test_context_matters_for_the_equality(make_predictor, streaming_cfg, video):
    """A model that ignored its neighbours would pass the test above."""
    path = video(5)
    predictor = make_predictor()
    clip_wise = ClipWise(streaming_cfg("INPUT.CLIP.LENGTH", 1), predictor)
    differences = list(check_video(path, predictor, clip_wise))
    assert max(x.scores for x in differences) > 1e-3


@pytest.mark.parametrize("every", [1, 3])
def test_each_frame_gives_one_result_with_its_flow(make_predictor, every):
    frames = list(make_frames(7))
    results = list(make_predictor(every=every).predict(timed(frames)))
    assert [x.index for x in results] == list(range(7))
    assert [x.time for x in results] == [i / 10 for i in range(7)]
    for result, frame in zip(results, frames, strict=True):
        assert result.frame is frame
        assert (result.instances is not None) == (result.index % every == 0)
        if result.index == 0:
            assert result.flow.shape == (HEIGHT, WIDTH, 2) and not result.flow.any()
        else:
            expected = compute_flow(frames[result.index - 1], frame)
            np.testing.assert_array_equal(result.flow, expected)
        if result.instances is not None:
            assert result.instances.image_size == (HEIGHT, WIDTH)
            assert result.instances.pred_masks.shape[1:] == (HEIGHT, WIDTH)
            assert result.instances.scores.device.type == "cpu"


def test_without_the_flow_stream_there_is_no_flow(make_predictor):
    predictor = make_predictor("MODEL.FLOW.ENABLED", False)
    assert [x.flow for x in predictor.predict(timed(make_frames(2)))] == [None, None]


def test_no_frames_give_no_results(make_predictor):
    predictor = make_predictor()
    assert list(predictor.predict([])) == []
    assert predictor.finish() == []


# ---------------------------------------------------------------- live sources


def test_pushing_equals_predicting(make_predictor):
    predictor = make_predictor(batch_size=1)
    expected = list(predictor.predict(timed(make_frames(6))))
    assert predictor.look_ahead == 2
    results, counts = [], []
    for time, frame in timed(make_frames(6)):
        new = predictor.push(frame, time)
        counts.append(len(new))
        results += new
    assert counts == [0, 0, 1, 1, 1, 1]  # delayed by the look-ahead alone
    results += predictor.finish()
    assert_same_results(results, expected)


def test_finish_and_reset_begin_anew(make_predictor):
    predictor = make_predictor(batch_size=3)
    expected = list(predictor.predict(timed(make_frames(4))))
    for end in (predictor.finish, predictor.reset):
        for frame in make_frames(5, height=48):
            predictor.push(frame)
        end()
        results = [x for item in timed(make_frames(4)) for x in predictor.push(*item[::-1])]
        assert_same_results(results + predictor.finish(), expected)


def test_a_video_leaves_what_was_pushed_alone(make_predictor):
    predictor = make_predictor()
    expected = list(predictor.predict(timed(make_frames(6))))
    items = list(timed(make_frames(6)))
    results = [x for time, frame in items[:3] for x in predictor.push(frame, time)]
    first, second = predictor.predict(items), predictor.predict(items)
    together = list(zip(first, second, strict=True))
    results += [x for time, frame in items[3:] for x in predictor.push(frame, time)]
    results += predictor.finish()
    for found in (results, [x for x, _ in together], [x for _, x in together]):
        assert_same_results(found, expected)


def test_times_of_a_live_source_are_those_of_a_clock(make_predictor, monkeypatch):
    clock = iter([100.0, 100.0, 100.5, 102.0])
    monkeypatch.setattr(streaming, "monotonic", lambda: next(clock))
    predictor = make_predictor("MODEL.TEMPORAL.ENABLED", False, batch_size=1)
    results = [x for frame in make_frames(3) for x in predictor.push(frame)]
    assert [x.time for x in results] == [0.0, 0.5, 2.0]


# ---------------------------------------------------------------- once, and no longer than needed


@pytest.fixture
def flows(monkeypatch):
    """The number of flows computed, in a list of one."""
    calls = [0]

    def spy(*arguments):
        calls[0] += 1
        return compute_flow(*arguments)

    monkeypatch.setattr(frames_module, "compute_flow", spy)
    return calls


@pytest.fixture
def temporal_rows(monkeypatch):
    """How many outputs for a frame the temporal modules computed: by step, None for windows."""
    rows = Counter()
    step, forward = TemporalConv.step, TemporalConv.forward

    def count_step(self, index, features, neighbours):
        rows[index] += len(neighbours)
        return step(self, index, features, neighbours)

    def count_windows(self, features, neighbours):
        rows[None] += len(neighbours)
        return forward(self, features, neighbours)

    monkeypatch.setattr(TemporalConv, "step", count_step)
    monkeypatch.setattr(TemporalConv, "forward", count_windows)
    return rows


@pytest.mark.parametrize(
    "options, arguments, expected",
    [
        # both streams, 14 frames
        ([], {}, {0: 28, 1: 28}),
        ([], {"batch_size": 1}, {0: 28, 1: 28}),
        (["INPUT.CLIP.STRIDE", 3], {"batch_size": 5}, {0: 28, 1: 28}),
        # key frames 0, 5 and 10, and for the first layer the frames beside them
        ([], {"every": 5}, {0: 2 * (2 + 3 + 3), 1: 2 * 3}),
        ([], {"every": 2, "batch_size": 3}, {0: 28, 1: 14}),
        # windows that hold less than the temporal modules look at
        (["INPUT.CLIP.LENGTH", 3], {}, {None: 28}),
        (["INPUT.CLIP.LENGTH", 4], {}, {None: 28}),
        (["MODEL.TEMPORAL.ENABLED", False], {}, {}),
    ],
)
def test_every_step_in_time_is_taken_once_a_frame(
    make_predictor, temporal_rows, options, arguments, expected
):
    small = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.0, "INPUT.MIN_SIZE_TEST", 32]
    predictor = make_predictor(*small, *options, **arguments)
    assert len(list(predictor.predict(timed(make_frames(14))))) == 14
    assert temporal_rows == expected


@pytest.mark.parametrize("arguments", [{}, {"batch_size": 1}, {"batch_size": 5}])
@pytest.mark.parametrize(
    "every, computed",
    [
        (1, set(range(14))),
        (5, {0, 1, 4, 5, 6, 9, 10, 11}),
        (13, {0, 1, 12, 13}),
    ],
)
def test_every_part_runs_once_a_frame(make_predictor, flows, arguments, every, computed):
    predictor = make_predictor("MODEL.TEMPORAL.NUM_LAYERS", 1, every=every, **arguments)
    taken, seen = [], {"backbone": 0, "flow_backbone": 0, "roi_heads": 0}
    for name in ("backbone", "flow_backbone"):
        getattr(predictor.model, name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: seen[name] + len(*inputs)})
        )
    predictor.model.roi_heads.register_forward_hook(
        lambda module, inputs, output: seen.update(roi_heads=seen["roi_heads"] + len(output[0]))
    )

    def source():
        for i, item in enumerate(timed(make_frames(14))):
            taken.append(i)
            yield item

    results = list(predictor.predict(source()))
    assert taken == list(range(14))
    assert flows == [13]
    keys = [x.index for x in results if x.instances is not None]
    assert keys == list(range(0, 14, every))
    assert seen == {
        "backbone": len(computed),
        "flow_backbone": len(computed),
        "roi_heads": len(keys),
    }


def test_several_frames_go_through_backbones_and_heads_at_once(make_predictor):
    predictor = make_predictor(batch_size=4)
    sizes = {"backbone": [], "roi_heads": []}
    predictor.model.backbone.register_forward_pre_hook(
        lambda module, inputs: sizes["backbone"].append(len(inputs[0]))
    )
    predictor.model.roi_heads.register_forward_pre_hook(
        lambda module, inputs: sizes["roi_heads"].append(len(inputs[2]))
    )
    assert len(list(predictor.predict(timed(make_frames(10))))) == 10
    assert sizes == {"backbone": [4, 4, 2], "roi_heads": [2, 4, 4]}


def most_remembered(predictor, count):
    """The largest number of each thing that is remembered while ``count`` frames are pushed."""
    most = dict.fromkeys(("features", "waiting", "gathered", "detections"), 0)
    for frame in make_frames(count, height=32, width=32):
        predictor.push(frame)
        stream = predictor._live
        assert set(most) < {x.name for x in fields(stream)}
        most = {name: max(value, len(getattr(stream, name))) for name, value in most.items()}
    predictor.finish()
    return most


@pytest.mark.parametrize(
    "stride, every, batch_size, held",
    [(1, 1, 3, 4), (2, 1, 1, 8), (1, 10, 2, 4)],
)
def test_memory_does_not_grow_with_the_video(make_predictor, stride, every, batch_size, held):
    options = ["INPUT.MIN_SIZE_TEST", 32, "INPUT.CLIP.STRIDE", stride]
    options += ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.0]  # detections take time
    predictor = make_predictor(*options, every=every, batch_size=batch_size)
    released = []
    predictor._network.extract = spy_on(predictor._network.extract, released)
    short = most_remembered(predictor, 50)
    assert most_remembered(predictor, 200) == short
    assert short["features"] == held
    assert short["waiting"] <= 2 * stride + max(batch_size, 16 if every > 1 else 0)
    assert all(reference() is None for reference in released)


def spy_on(extract, references):
    def spy(frames):
        features = extract(frames)
        references.extend(weakref.ref(x) for x in features)
        return features

    return spy


# ---------------------------------------------------------------- the background thread


def test_frames_are_taken_in_the_background_and_not_far_ahead(make_predictor):
    threads, taken = set(), itertools.count()

    def source():
        for item in timed(make_frames(40, height=48, width=48)):
            threads.add(threading.current_thread().name.rpartition("_")[0])
            next(taken)
            yield item

    results = make_predictor(batch_size=2).predict(source())
    for i in range(10):
        assert next(results).index == i
    results.close()
    assert threads == {"a2d_d2-ahead"}
    # the look-ahead, a batch that is being gathered, two batches in the background
    assert next(taken) <= 10 + 2 + 2 + 4
    assert not background_threads()


def test_an_error_of_the_source_ends_the_thread(make_predictor):
    def source():
        yield from timed(make_frames(6))
        raise ValueError("the tape is torn")

    results = make_predictor(batch_size=2).predict(source())
    with pytest.raises(ValueError, match="^the tape is torn$"):
        list(results)
    assert not background_threads()


def test_an_error_of_the_network_ends_the_thread(make_predictor):
    predictor = make_predictor(batch_size=2)

    def fail(*arguments):
        raise RuntimeError("no memory")

    predictor.model.backbone.register_forward_pre_hook(fail)
    results = predictor.predict(timed(make_frames(30)))
    with pytest.raises(RuntimeError, match="no memory") as caught:
        next(results)
    assert not background_threads(), caught


@pytest.mark.parametrize("give_up", ["close", "drop"])
def test_giving_up_half_way_ends_the_thread(make_predictor, give_up):
    results = make_predictor(batch_size=2).predict(timed(make_frames(30)))
    assert next(results).index == 0
    assert background_threads()
    if give_up == "close":
        results.close()
    del results
    assert not background_threads()


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "frame, message",
    [
        (np.zeros((64, 80), np.uint8), r"frame 1 is uint8 \(64, 80\); frames are BGR uint8"),
        (np.zeros((64, 80, 3), np.float32), r"frame 1 is float32 \(64, 80, 3\)"),
        (np.zeros((0, 80, 3), np.uint8), r"frame 1 is uint8 \(0, 80, 3\)"),
        (None, "frame 1 is NoneType"),
        (np.zeros((80, 64, 3), np.uint8), "frame 1 has 64x80 pixels, those before it 80x64"),
    ],
)
def test_what_is_no_frame_is_named(make_predictor, frame, message):
    predictor = make_predictor()
    good = next(make_frames(1))
    with pytest.raises(ValueError, match=message):
        list(predictor.predict([(0.0, good), (0.1, frame)]))
    assert not background_threads()
    predictor.push(good)
    with pytest.raises(ValueError, match=message):
        predictor.push(frame)


def test_frames_too_narrow_for_the_network_are_named(make_predictor):
    predictor = make_predictor("INPUT.MAX_SIZE_TEST", 100)
    narrow = np.zeros((1, 2000, 3), np.uint8)
    with pytest.raises(ValueError, match=r"frames of 2000 x 1 pixels are too narrow .* pad them"):
        list(predictor.predict([(0.0, narrow)]))


@pytest.mark.parametrize(
    "options, arguments, message",
    [
        ([], {"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ([], {"every": 0}, "every is 0; it must be at least 1"),
        ([], {"precision": "half"}, "precision is 'half'; it must be one of float32, float16"),
        ([], {"precision": "float16"}, "float16 needs a GPU for this model; use bfloat16 or float"),
        (MASK_RCNN, {"precision": "bfloat16"}, "bfloat16 needs a GPU for this model; use float32"),
        (["INPUT.CLIP.STRIDE", 0], {}, "INPUT.CLIP.STRIDE is 0; it must be at least 1"),
        (["INPUT.FLOW_METHOD", "dsi"], {}, "unknown flow method 'dsi'"),
        (["INPUT.FORMAT", "RGB"], {}, "INPUT.FORMAT is 'RGB'; clips are BGR"),
    ],
)
def test_wrong_values_are_named(make_predictor, options, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_predictor(*options, **arguments)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"every": -1}, {"precision": "float16"}])
def test_wrong_options_are_named_before_the_model_is_built(streaming_cfg, monkeypatch, wrong):
    monkeypatch.setattr(streaming, "build_model", lambda cfg: pytest.fail("was built"))
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StreamingPredictor.from_config(streaming_cfg(), **wrong)


def test_bfloat16_says_nearly_the_same(make_predictor):
    exact = make_predictor().predict(timed(make_frames(4)))
    for x, y in zip(
        exact,
        make_predictor(precision="bfloat16").predict(timed(make_frames(4))),
        strict=True,
    ):
        assert y.instances.scores.dtype == torch.float32
        assert not torch.equal(x.instances.scores, y.instances.scores)
        torch.testing.assert_close(x.instances.scores[0], y.instances.scores[0], rtol=0.1, atol=0.1)
