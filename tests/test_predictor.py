"""The Python API."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import a2d_d2
from a2d_d2 import ActorActionPredictor
from a2d_d2.label_space import LabelSpace

ROOT = Path(__file__).parents[1]
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
def config(small_cfg, tmp_path):
    """config("KEY", value, ...): a configuration file."""

    def make(*options):
        path = tmp_path / "config.yaml"
        path.write_text(small_cfg(*OPTIONS, *options).dump())
        return path

    return make


@pytest.fixture
def make_predictor(config, random_weights):
    """make_predictor(score_threshold=..., ...): with random weights."""
    return lambda **arguments: ActorActionPredictor(
        config(), **{"score_threshold": 0.0} | arguments
    )


def test_importing_the_package_stays_cheap():
    code = "import a2d_d2, sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'Predictor'"):
        _ = a2d_d2.Predictor


def test_results_are_those_of_streaming_by_name(make_predictor, frames):
    predictor = make_predictor()
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
def test_frames_may_come_as_list_generator_or_array(make_predictor, frames, kind):
    predictor = make_predictor()
    results = list(predictor.predict(kind(frames)))
    assert [x.time for x in results] == [i / 25 for i in range(6)]
    assert all(x.actors for x in results)


@pytest.fixture
def video_file(frames, tmp_path):
    """The frames at 10 a second."""
    path = tmp_path / "video.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (80, 64))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def test_a_path_is_decoded_with_its_times(make_predictor, frames, video_file):
    predictor = make_predictor()
    for video in (video_file, str(video_file)):
        results = list(predictor.predict(video))
        assert [x.time for x in results] == pytest.approx([i / 10 for i in range(6)])
        assert np.abs(results[3].frame.astype(int) - frames[3]).mean() < 20


def test_what_was_lost_is_known_in_the_end(make_predictor, frames, tmp_path):
    for i, frame in enumerate(frames[:3]):
        cv2.imwrite(str(tmp_path / f"{i}.png"), frame)
    (tmp_path / "1.png").write_bytes(b"no image")
    video = make_predictor().predict(tmp_path)
    assert len(list(video)) == 2
    assert video.problem.startswith("1 frame could not be decoded")
    video = make_predictor().predict(frames)
    assert len(list(video)) == 6 and video.problem is None


def test_actors_below_the_threshold_are_left_out(make_predictor, frames):
    everything = list(make_predictor().predict(frames))
    scores = sorted(x.score for frame in everything for x in frame.actors)
    threshold = scores[len(scores) // 2]
    some = make_predictor(score_threshold=threshold).predict(frames)
    for found, full in zip(some, everything, strict=True):
        kept = [x.score for x in full.actors if x.score > threshold]
        assert [x.score for x in found.actors] == pytest.approx(kept)


def test_frames_between_detections_are_empty_without_tracking(make_predictor, frames):
    predictor = make_predictor(every=4)
    results = list(predictor.predict(frames))
    assert [x.detected for x in results] == [True, False, False, False, True, False]
    assert [bool(x.actors) for x in results] == [x.detected for x in results]


def test_tracking_numbers_actors_and_carries_them_between_detections(make_predictor, frames):
    predictor = make_predictor(every=3, tracking=True)
    results = list(predictor.predict(frames))
    assert [x.detected for x in results] == [True, False, False, True, False, False]
    for result in results:
        numbers = [x.track_id for x in result.actors]
        assert len(numbers) == len(set(numbers)) > 0
        assert {x.carried for x in result.actors} == {not result.detected}
        assert all(x.action_score == x.action_scores.max() for x in result.actors)
        assert all(x.box.dtype == np.float32 for x in result.actors)
    first, second = ({x.track_id: x for x in results[i].actors} for i in (0, 1))
    assert set(second) <= set(first)
    for number, x in second.items():
        assert (x.actor, x.action) == (first[number].actor, first[number].action)


def expected_tracks(frames):
    """The tracks of drawn-out frames, put together by hand."""
    tracks = {}
    for frame in frames:
        for x in frame.actors:
            tracks.setdefault(x.track_id, []).append((frame.index, frame.time, x))
    return tracks


@pytest.mark.parametrize("arguments", [{}, {"every": 3}, {"min_track_length": 4}], ids=str)
def test_tracks_are_the_timelines_of_the_frames(make_predictor, frames, arguments):
    prediction = make_predictor(tracking=True, **arguments).predict(frames, fps=10)
    assert prediction.tracks == ()
    expected = expected_tracks(list(prediction))
    assert [x.track_id for x in prediction.tracks] == list(expected) == list(range(len(expected)))
    assert expected
    for track in prediction.tracks:
        rows = expected[track.track_id]
        assert {track.actor} == {x.actor for _, _, x in rows}
        assert (track.first, track.first_time, track.frames) == (*rows[0][:2], len(rows))
        assert (track.last, track.last_time) == rows[-1][:2]
        assert track.score == pytest.approx(np.mean([x.score for _, _, x in rows]))
        covered = []
        for segment in track.segments:
            inside = [row for row in rows if segment.first <= row[0] <= segment.last]
            assert (segment.first, segment.first_time) == inside[0][:2]
            assert (segment.last, segment.last_time) == inside[-1][:2]
            assert {x.action for _, _, x in inside} == {segment.action}
            pair_scores = [x.score * x.action_score for _, _, x in inside]
            assert segment.score == pytest.approx(np.mean(pair_scores))
            covered += inside
        assert len(covered) == len(rows)


def test_short_tracks_are_left_out(make_predictor, frames):
    every = make_predictor(tracking=True).predict(frames)
    found = list(every)
    some = make_predictor(tracking=True, min_track_length=4).predict(frames)
    assert len(found) == len(list(some)) == 6
    assert all(x.last - x.first + 1 >= 4 for x in some.tracks)
    assert 0 < len(some.tracks) < len(every.tracks)


def test_a_part_of_a_video_keeps_its_numbers_and_times(make_predictor, frames, video_file):
    predictor = make_predictor(tracking=True)
    prediction = predictor.predict(video_file, start=0.15, end=0.45)
    found = list(prediction)
    assert [x.index for x in found] == [2, 3, 4]
    assert [x.time for x in found] == pytest.approx([0.2, 0.3, 0.4])
    assert min(x.first for x in prediction.tracks) == 2
    assert max(x.last for x in prediction.tracks) == 4
    assert max(x.last_time for x in prediction.tracks) == pytest.approx(0.4)
    with pytest.raises(ValueError, match=r"end must be .* above start \(2\)"):
        predictor.predict(video_file, start=2, end=1)
    with pytest.raises(ValueError, match="start and end are of a path"):
        predictor.predict(frames, start=0.1)


def test_a_prediction_that_is_left_ends_its_work(make_predictor, frames):
    """Closed or dropped, without waiting for the garbage collector."""
    for leave in (lambda prediction: prediction.close(), lambda prediction: None):
        ended = []

        def endless(ended=ended):
            try:
                while True:
                    yield frames[0]
            finally:
                ended.append(True)

        prediction = make_predictor(tracking=True, batch_size=1).predict(endless())
        next(prediction)
        leave(prediction)
        del prediction
        assert ended


def test_the_example_of_the_readme(tiny_release, monkeypatch, capsys):
    """As it stands, with the model of the repository, but for the name of the video."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(from a2d_d2 import [^`]*)```", text)
    monkeypatch.chdir(ROOT)
    video = str(next((tiny_release / "clips320H").iterdir()))
    names = {}
    exec(code.replace("clip.mp4", video), names)
    assert names["picture"].shape == (64, 80, 3) and names["frame"].index == 11
    timelines = [line for line in capsys.readouterr().out.splitlines() if " to " in line]
    assert len(timelines) == sum(len(x.segments) for x in names["video"].tracks) > 0


def test_without_masks(make_predictor, frames):
    for tracking in (False, True):
        predictor = make_predictor(
            options={"MODEL.MASK_ON": False}, tracking=tracking, batch_size=1
        )
        for result in predictor.predict(frames[:2]):
            assert result.actors and all(x.mask is None for x in result.actors)
            assert result.draw().shape == (64, 80, 3)


def test_drawing(make_predictor, frames):
    predictor = make_predictor()
    (result,) = predictor.predict(frames[:1])
    picture = result.draw()
    assert picture.shape == (64, 80, 3) and picture.dtype == np.uint8
    assert picture.flags.c_contiguous  # as OpenCV's writers want it
    np.testing.assert_array_equal(result.frame, frames[0])  # left alone
    assert (picture != result.frame).any()
    assert result.draw(scale=3).shape == (192, 240, 3)
    (empty,) = make_predictor(score_threshold=1.0).predict(frames[:1])
    assert empty.actors == ()
    np.testing.assert_array_equal(empty.draw(), frames[0])


def test_weights_options_and_device(config, frames, small_model, tmp_path):
    weights = tmp_path / "model_final.pth"
    model = small_model(*OPTIONS, seed=1)
    torch.save({"model": model.state_dict()}, weights)
    options = {"INPUT.CLIP.STRIDE": 2}
    predictor = ActorActionPredictor(config(), weights, options=options, device="cpu")
    with pytest.raises(ValueError, match=r"other\.pth"):  # as on the command line, the key counts
        ActorActionPredictor(config(), weights, options=options | {"MODEL.WEIGHTS": "other.pth"})
    weights.unlink()
    for name, value in predictor.streaming.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert predictor.streaming.schedule.stride == predictor.streaming.look_ahead == 2
    assert predictor.streaming.device.type == "cpu"


def test_mistakes_are_named(config, make_predictor, tmp_path):
    with pytest.raises(ValueError, match=r"^bad option: there is no key INPUT\.CLIP\.STRIED"):
        make_predictor(options={"INPUT.CLIP.STRIED": 2})
    with pytest.raises(ValueError, match="smoothing is -1"):
        make_predictor(tracking=True, smoothing=-1)
    with pytest.raises(ValueError, match="min_track_length is 3; it needs tracking=True"):
        make_predictor(min_track_length=3)
    with pytest.raises(ValueError, match="give tracking=True"):
        _ = make_predictor().predict([]).tracks
    predictor = make_predictor()
    with pytest.raises(ValueError, match="frame 0 is uint8"):
        list(predictor.predict(np.zeros((64, 80, 3), np.uint8)))
    with pytest.raises(ValueError, match="fps is 0; it must be above 0"):
        list(predictor.predict(np.zeros((2, 64, 80, 3), np.uint8), fps=0))
    with pytest.raises(ValueError, match=r"missing\.mp4"):
        list(predictor.predict(tmp_path / "missing.mp4"))


@pytest.mark.parametrize(
    "weights, message", [("", "MODEL.WEIGHTS is empty"), ("missing.pth", r"missing\.pth")]
)
def test_missing_weights_are_named(config, weights, message):
    with pytest.raises(ValueError, match=message):
        ActorActionPredictor(config(), weights)


def test_the_threshold_is_that_of_the_configuration(make_predictor, config, frames):
    every = [len(x.actors) for x in make_predictor().predict(frames)]
    asked = make_predictor(score_threshold=None, options={"TEST.ACTOR_THRESH": 0.0})
    assert [len(x.actors) for x in asked.predict(frames)] == every and sum(every)
    none = make_predictor(score_threshold=None, options={"TEST.ACTOR_THRESH": 1.0})
    assert not any(x.actors for x in none.predict(frames))


@pytest.mark.parametrize(
    "wrong",
    [{"score_threshold": 5}, {"score_threshold": "x"}, {"smoothing": -3}, {"smoothing": "x"}]
    + [{"device": "foo"}, {"device": "cuda:99"}],
    ids=str,
)
def test_wrong_arguments_are_named(make_predictor, wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        make_predictor(**wrong)
