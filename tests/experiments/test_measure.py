"""What a record takes from the logs of a training."""

import json

import pytest

from a2d_d2.experiments.measure import chance_precisions, shown_frames, training_facts
from a2d_d2.label_space import LabelSpace


def _write_log(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_time_and_curve_of_a_training_that_was_resumed(tmp_path):
    score = "segmentation/joint/mIoU"
    _write_log(
        tmp_path / "metrics.json",
        {"iteration": 19, "total_loss": 3.0, "time": 0.5, score: 10.0},
        {"iteration": 39, "total_loss": 2.0, "time": 0.9},
        # Stopped here, and on from the checkpoint of step 30.
        {"iteration": 39, "total_loss": 2.0, "time": 1.0, score: 20.0},
        {"iteration": 49, "total_loss": 1.0, "time": 2.0},
        {"iteration": 50, score: 30.0},
        # Stopped in the last evaluation, which was done again.
        {"iteration": 51, score: 30.0},
    )
    facts = training_facts(tmp_path)
    assert facts["training"] == {"steps": 50, "seconds_of_steps": 20 * 0.5 + 20 * 1.0 + 10 * 2.0}
    assert facts["validation"] == {score: [[20, 10.0], [40, 20.0], [50, 30.0]]}


def test_both_stages_count(tmp_path):
    line = {"iteration": 9, "total_loss": 3.0, "time": 0.5}
    _write_log(tmp_path / "actor_stage" / "metrics.json", line)
    _write_log(tmp_path / "metrics.json", line | {"time": 1.0})
    facts = training_facts(tmp_path)
    assert facts["training"] == {"steps": 20, "seconds_of_steps": 15.0}


def test_a_training_too_short_for_times_has_none(tmp_path):
    _write_log(tmp_path / "metrics.json", {"iteration": 1, "total_loss": 3.0})
    assert training_facts(tmp_path)["training"] == {"steps": 2, "seconds_of_steps": None}


def test_the_frames_shown_are_evenly_spaced():
    assert shown_frames(list(range(15)), 8) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert shown_frames([3, 4], 8) == [3, 4]


def test_chance_of_a_detector_that_finds_everything(tiny_release, tmp_path):
    """Perfect boxes and actors, no action: each pair's AP is that of its share by rank."""
    from a2d_d2.data.release import load_release

    space = LabelSpace.a2d()
    entries = []
    for record in load_release(tiny_release, "test", space, progress=False):
        for annotation in record["annotations"]:
            x0, y0, x1, y1 = annotation["bbox"]
            entries.append(
                {
                    "video_id": record["video_id"],
                    "frame": record["frame_index"] + 1,
                    "actor": space.actors[annotation["category_id"]],
                    "score": 0.9,
                    "action_scores": [0.0] * space.num_actions,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": None,
                }
            )
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps(entries))
    chance = chance_precisions(tiny_release, path, space, progress=False)
    # The test videos show a dog that eats, a car that jumps and a ball that flies, one pair an
    # actor: this pair is found with certainty, the others do not occur.
    for actor, num_actions in (("dog", 7), ("car", 5), ("ball", 4)):
        assert chance[actor] == pytest.approx(100 / num_actions)
    assert chance["cat"] == 0.0
