"""The tools that make pictures, end to end on a tiny release."""

import json
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from a2d_d2.config import setup_cfg
from a2d_d2.data.release import load_release, read_annotation
from a2d_d2.evaluation.predictions import encode_mask
from a2d_d2.label_space import LabelSpace
from a2d_d2.visualization import results
from a2d_d2.visualization.clips import draw_clips
from a2d_d2.visualization.results import frame_agreement, make_report, read_metrics, spread

A2D = LabelSpace.a2d()


@pytest.fixture(autouse=True)
def index_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("A2D_D2_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def records(tiny_release):
    return load_release(tiny_release, "test", A2D, progress=False)


@pytest.fixture
def predictions(records):
    """The truth of every frame but the first, as predictions."""
    entries = []
    for record in records[1:]:
        annotation = read_annotation(record["label_map_file"])
        for mask, box, joint_id in zip(
            annotation.masks, annotation.boxes, annotation.joint_ids, strict=True
        ):
            actor, action = A2D.split_id(joint_id)
            x1, y1, x2, y2 = box.tolist()
            entries.append(
                {
                    "video_id": record["video_id"],
                    "frame": record["frame_index"] + 1,
                    "actor": A2D.actors[actor],
                    "score": 0.9,
                    "action_scores": {A2D.actions[action]: 0.8},
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "segmentation": encode_mask(mask),
                }
            )
    return entries


def write(path, value):
    path.write_text(json.dumps(value))
    return str(path)


def test_agreement_of_label_maps():
    truth = np.array([[11, 11, 0, 0]])
    assert frame_agreement(truth, truth) == 1
    assert frame_agreement(truth, np.array([[11, 0, 0, 0]])) == 0.5
    assert frame_agreement(truth, np.array([[11, 12, 0, 0]])) == 0.25  # (1/2 + 0/1) / 2
    assert frame_agreement(truth * 0, truth * 0) == 1
    assert frame_agreement(truth * 0, truth) == 0


def test_frames_are_spread_over_the_ranks():
    assert spread([0.1, 0.9, 0.5, 0.7, 0.3], 3) == [1, 2, 0]
    assert spread([0.5, 0.5, 0.5], 9) == [0, 1, 2]
    assert spread([0.1, 0.9], 1) == [1]


def test_report_of_a_release(tmp_path, tiny_release, records, predictions, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        results,
        "read_frames",
        lambda path, indices, read=results.read_frames: decoded.append(path) or read(path, indices),
    )
    page = make_report(
        str(tiny_release),
        write(tmp_path / "predictions.json", predictions),
        str(tmp_path / "out"),
        A2D,
        num_frames=100,
        progress=False,
    )
    text = page.read_text(encoding="utf-8")
    assert len(decoded) == len(set(decoded)) == 2  # one pass a video
    assert len(list((tmp_path / "out/frames").glob("*.png"))) == len(records)
    assert text.count("<article") == len(records)
    assert text.count("IoU 100 %") == len(records) - 1
    assert text.count("IoU 0 %") == text.count("Prediction: nothing</figcaption>") == 1
    pairs = [(a["category_id"], a["action_id"]) for a in records[1]["annotations"]]
    assert f"Truth: {', '.join(sorted(A2D.pair_name(*pair) for pair in pairs))}<" in text
    # Thresholds above the scores leave nothing.
    page = make_report(
        str(tiny_release),
        str(tmp_path / "predictions.json"),
        str(tmp_path / "out"),
        A2D,
        num_frames=2,
        actor_threshold=0.95,
        progress=False,
    )
    assert page.read_text(encoding="utf-8").count("Prediction: nothing</figcaption>") == 2


def test_wrong_inputs_are_named(tmp_path, tiny_release, records, predictions):
    def make(entries, **options):
        file = write(tmp_path / "p.json", entries)
        make_report(str(tiny_release), file, str(tmp_path / "out"), A2D, progress=False, **options)

    entry = predictions[0]
    with pytest.raises(ValueError, match=r"p.json: video nowhere, frame 1 is no annotated frame"):
        make([entry | {"video_id": "nowhere", "frame": 1}])
    with pytest.raises(ValueError, match=f"video {entry['video_id']}, frame {entry['frame']}: "):
        make([entry | {"segmentation": encode_mask(np.zeros((3, 4), bool))}])
    training = write(tmp_path / "metrics.json", {"iteration": 1, "total_loss": 2.0})
    with pytest.raises(ValueError, match="metrics.json holds no scores; --metrics takes"):
        make(predictions, metrics_file=training)
    Path(training).write_text("{")
    with pytest.raises(ValueError, match="metrics.json holds no scores"):
        make(predictions, metrics_file=training)
    with pytest.raises(ValueError, match="cannot read .*nowhere.json: No such file"):
        make(predictions, metrics_file=str(tmp_path / "nowhere.json"))
    for protocol in ("med-vt", "coco"):
        other = write(tmp_path / "other.json", {"protocol": protocol, "segmentation": {}})
        with pytest.raises(ValueError, match=f"other.json holds scores of protocol {protocol}"):
            make(predictions, metrics_file=other)
    assert not (tmp_path / "out").exists()


def test_tool_ends_with_one_line(tmp_path, tiny_release, monkeypatch, capsys):
    tool = str(Path(__file__).parents[2] / "tools/visualize_results.py")
    options = [f"--root={tiny_release}", f"--output={tmp_path / 'out'}"]
    monkeypatch.setattr(sys, "argv", [tool, *options, f"--predictions={tmp_path / 'none.json'}"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(tool, run_name="__main__")
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: cannot read predictions")


@pytest.mark.parametrize("split", ["train", "test"])
def test_clips_are_drawn_as_the_mapper_gives_them(tmp_path, tiny_release, split):
    options = ["DATASETS.ROOT", str(tiny_release), "SEED", "1"]
    options += [f"DATASETS.{split.upper()}", f"('a2d_{split}',)", "INPUT.MIN_SIZE_TRAIN", "(64,)"]
    cfg = setup_cfg("", [*options, "INPUT.MIN_SIZE_TEST", "64"])
    first = draw_clips(cfg, split, 2, tmp_path / "a", progress=False)
    again = draw_clips(cfg, split, 2, tmp_path / "b", progress=False)
    assert len(first) == 2
    for path, other in zip(first, again, strict=True):
        assert (cv2.imread(str(path)) == cv2.imread(str(other))).all()
    with pytest.raises(ValueError, match="names no data set; give --config-file"):
        draw_clips(setup_cfg(), split, 1, tmp_path / "c", progress=False)


@pytest.mark.parametrize(
    "metrics",
    [
        {"segmentation": {"joint": {"mIoU": "<b>"}}},
        {"segmentation": {"joint": [1]}},
        {"segmentation": {}, "detection": 7},
        {"segmentation": {}, "per_class": {"segmentation": {"actor": {"dog": 3}}}},
        {"segmentation": {}, "per_class": [1]},
    ],
)
def test_scores_that_are_no_numbers(tmp_path, metrics):
    with pytest.raises(ValueError, match=r"m\.json holds scores that are no numbers"):
        read_metrics(str(write(tmp_path / "m.json", metrics)))
