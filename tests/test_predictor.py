"""The Python API."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

import a2d_d2
from a2d_d2 import ActorActionPredictor
from a2d_d2.label_space import LabelSpace

OPTIONS = ["INPUT.MIN_SIZE_TEST", 64, "INPUT.CLIP.LENGTH", 3, "TEST.DETECTIONS_PER_IMAGE", 8]


@pytest.fixture(scope="module")
def frames():
    """Six frames of a bright square that moves over noise."""
    noise = np.random.default_rng(0).integers(0, 100, (64, 80, 3), dtype=np.uint8)
    made = np.stack([noise] * 6)
    for i, frame in enumerate(made):
        frame[20:44, 10 + 4 * i : 34 + 4 * i] = (40, 220, 250)
    return made


@pytest.fixture
def files(small_cfg, small_model, tmp_path):
    """files("KEY", value, ...): a configuration file and random weights in a checkpoint."""

    def make(*options):
        config, weights = tmp_path / "config.yaml", tmp_path / "model_final.pth"
        model = small_model(*OPTIONS, *options)
        model.roi_heads.box_predictor.cls_score.weight.data *= 30  # else all score the same
        torch.save({"model": model.state_dict()}, weights)
        config.write_text(small_cfg(*OPTIONS, *options).dump())
        return config, weights

    return make


def test_importing_the_package_stays_cheap():
    code = "import a2d_d2, sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'Predictor'"):
        _ = a2d_d2.Predictor


def test_results_are_those_of_streaming_by_name(files, frames):
    predictor = ActorActionPredictor(*files(), score_threshold=0.0)
    space = LabelSpace.a2d()
    expected = list(predictor.streaming.predict((i / 10, x) for i, x in enumerate(frames)))
    results = list(predictor.predict(frames, fps=10))
    assert len(results) == 6
    for found, result in zip(results, expected, strict=True):
        instances = result.instances
        assert (found.index, found.time, found.detected) == (result.index, result.time, True)
        np.testing.assert_array_equal(found.frame, frames[found.index])
        assert len(found.actors) == len(instances) > 0
        order = instances.scores.argsort(descending=True, stable=True).tolist()
        for x, i in zip(found.actors, order, strict=True):
            assert x.actor == space.actors[instances.pred_classes[i]]
            assert x.action == space.actions[instances.pred_actions[i]]
            assert x.score == instances.scores[i] and isinstance(x.score, float)
            np.testing.assert_array_equal(x.box, instances.pred_boxes.tensor[i])
            assert x.box.dtype == np.float32
            np.testing.assert_array_equal(x.mask, instances.pred_masks[i])
            assert x.mask.dtype == bool and x.mask.shape == (64, 80)
            np.testing.assert_array_equal(x.action_scores, instances.action_scores[i])
            assert list(x.scores_by_action) == list(space.actions)
            assert x.scores_by_action["running"] == x.action_scores[space.action_index("running")]
            assert x.action_score == x.action_scores.max()
            assert x.track_id is None and not x.carried


@pytest.mark.parametrize("kind", [list, iter, np.asarray])
def test_frames_may_come_as_list_generator_or_array(files, frames, kind):
    predictor = ActorActionPredictor(*files(), score_threshold=0.0)
    results = list(predictor.predict(kind(frames)))
    assert [x.time for x in results] == [i / 25 for i in range(6)]
    assert all(x.actors for x in results)


def test_a_path_is_decoded_with_its_times(files, frames, tmp_path):
    path = tmp_path / "video.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (80, 64))
    for frame in frames:
        writer.write(frame)
    writer.release()
    predictor = ActorActionPredictor(*files())
    for video in (path, str(path)):
        results = list(predictor.predict(video))
        assert [x.time for x in results] == pytest.approx([i / 10 for i in range(6)])
        assert np.abs(results[3].frame.astype(int) - frames[3]).mean() < 20


def test_actors_below_the_threshold_are_left_out(files, frames):
    config, weights = files()
    everything = list(ActorActionPredictor(config, weights, score_threshold=0.0).predict(frames))
    scores = sorted(x.score for frame in everything for x in frame.actors)
    threshold = scores[len(scores) // 2]
    some = ActorActionPredictor(config, weights, score_threshold=threshold).predict(frames)
    for found, full in zip(some, everything, strict=True):
        kept = [x.score for x in full.actors if x.score > threshold]
        assert [x.score for x in found.actors] == pytest.approx(kept)


def test_frames_between_detections_are_empty_without_tracking(files, frames):
    predictor = ActorActionPredictor(*files(), score_threshold=0.0, every=4)
    results = list(predictor.predict(frames))
    assert [x.detected for x in results] == [True, False, False, False, True, False]
    assert [bool(x.actors) for x in results] == [x.detected for x in results]


def test_tracking_numbers_actors_and_carries_them_between_detections(files, frames):
    predictor = ActorActionPredictor(*files(), score_threshold=0.0, every=3, tracking=True)
    results = list(predictor.predict(frames))
    assert [x.detected for x in results] == [True, False, False, True, False, False]
    for result in results:
        numbers = [x.track_id for x in result.actors]
        assert len(numbers) == len(set(numbers)) > 0
        assert {x.carried for x in result.actors} == {not result.detected}
        assert all(x.action_score == x.action_scores.max() for x in result.actors)
    first, second = ({x.track_id: x for x in results[i].actors} for i in (0, 1))
    assert set(second) <= set(first)
    for number, x in second.items():
        assert (x.actor, x.action) == (first[number].actor, first[number].action)


def test_without_masks(files, frames):
    config, weights = files("MODEL.MASK_ON", False)
    for tracking in (False, True):
        predictor = ActorActionPredictor(
            config, weights, score_threshold=0.0, tracking=tracking, batch_size=1
        )
        for result in predictor.predict(frames[:2]):
            assert result.actors and all(x.mask is None for x in result.actors)
            assert result.draw().shape == (64, 80, 3)


def test_drawing(files, frames):
    predictor = ActorActionPredictor(*files(), score_threshold=0.0)
    (result,) = predictor.predict(frames[:1])
    picture = result.draw()
    assert picture.shape == (64, 80, 3) and picture.dtype == np.uint8
    assert picture.flags.c_contiguous  # as OpenCV's writers want it
    np.testing.assert_array_equal(result.frame, frames[0])  # left alone
    assert (picture != result.frame).any()
    assert result.draw(scale=3).shape == (192, 240, 3)
    (empty,) = ActorActionPredictor(*files(), score_threshold=1.0).predict(frames[:1])
    assert empty.actors == ()
    np.testing.assert_array_equal(empty.draw(), frames[0])


def test_options_weights_and_device(files, frames):
    config, weights = files()
    predictor = ActorActionPredictor(
        config, options={"MODEL.WEIGHTS": str(weights), "INPUT.CLIP.STRIDE": 2}, device="cpu"
    )
    assert predictor.streaming.schedule.stride == 2
    assert predictor.streaming.look_ahead == 2
    assert predictor.streaming.device.type == "cpu"


def test_mistakes_are_named(files, tmp_path):
    config, weights = files()
    with pytest.raises(ValueError, match="MODEL.WEIGHTS is empty"):
        ActorActionPredictor(config)
    with pytest.raises(ValueError, match="missing.pth"):
        ActorActionPredictor(config, tmp_path / "missing.pth")
    with pytest.raises(ValueError, match="INPUT.CLIP.STRIED"):
        ActorActionPredictor(config, weights, options={"INPUT.CLIP.STRIED": 2})
    predictor = ActorActionPredictor(config, weights)
    with pytest.raises(ValueError, match="frame 0 is uint8"):
        list(predictor.predict(np.zeros((64, 80, 3), np.uint8)))
    with pytest.raises(ValueError, match="missing.mp4"):
        list(predictor.predict(tmp_path / "missing.mp4"))
