"""Painting thresholds: a tiny case by hand, and every pair of the grid by the slow way."""

import numpy as np
import pytest

from a2d_d2.data.layout import read_annotation
from a2d_d2.data.release_writer import write_annotation
from a2d_d2.evaluation.predictions import encode_mask, parse_entries, read_predictions
from a2d_d2.evaluation.scoring import score_frame, summarize
from a2d_d2.evaluation.thresholds import ACTION_GRID, ACTOR_GRID, Thresholds, choose_thresholds
from a2d_d2.label_space import LabelSpace

A2D = LabelSpace.a2d()


def _write(path, columns):
    """A 1 x 10 frame; ``columns`` of it are one dog that runs."""
    mask = np.zeros((1, 1, 10), dtype=bool)
    mask[..., columns] = True
    write_annotation(path, np.where(mask[0], 77, 0), mask, [77], A2D)
    return path


def _entry(columns, score, action_score):
    mask = np.zeros((1, 10), dtype=bool)
    mask[:, columns] = True
    return {
        "video_id": "v",
        "frame": 1,
        "actor": "dog",
        "score": score,
        "action_scores": {"running": action_score},
        "bbox": [0, 0, 1, 1],
        "segmentation": encode_mask(mask),
    }


def _choose(path, entries, **grids):
    predictions = parse_entries(list(enumerate(entries)), A2D)
    return choose_thresholds([(path, predictions)], A2D, progress=False, **grids)


def test_by_hand(tmp_path):
    # Truth: columns 0-3. A sure right half (0, 1), a less sure rest (2, 3), and junk (4-9).
    path = _write(tmp_path / "1.mat", [0, 1, 2, 3])
    entries = [_entry([0, 1], 0.9, 0.8), _entry([2, 3], 0.6, 0.5), _entry(range(4, 10), 0.3, 0.4)]
    grids = {"actor_grid": (0.2, 0.5, 0.8), "action_grid": (0.0, 0.45, 0.6)}
    # All painted: dog 4/10, background 0/6. From 0.5 or 0.45 on: all right. From 0.8 or 0.6 on:
    # dog 2/4, background 6/8. Of the best, the smaller actor threshold wins.
    assert _choose(path, entries, **grids) == Thresholds(0.2, 0.45, 100.0)
    # Without the junk every small pair is as good; the smallest wins.
    assert _choose(path, entries[:2], **grids) == Thresholds(0.2, 0.0, 100.0)
    only_high = {"actor_grid": (0.8,), "action_grid": (0.6,)}
    assert _choose(path, entries, **only_high) == Thresholds(0.8, 0.6, pytest.approx(62.5))
    # A score that is the threshold is painted.
    equal = {"actor_grid": (0.6,), "action_grid": (0.5,)}
    assert _choose(path, entries, **equal) == Thresholds(0.6, 0.5, 100.0)


def test_the_grids_are_tenths_with_small_scores_and_start_where_all_is_painted():
    tenths = np.arange(1, 10) / 10
    assert pytest.approx([0.0, 0.01, 0.02, 0.05, *tenths]) == ACTOR_GRID
    assert pytest.approx([0.0, *tenths]) == ACTION_GRID


def test_progress_is_shown_unless_it_is_not_wanted(tmp_path, capsys):
    frames = [(_write(tmp_path / "1.mat", [0]), parse_entries([], A2D))]
    choose_thresholds(frames, A2D, progress=False)
    assert capsys.readouterr().err == ""
    choose_thresholds(frames, A2D)
    assert "thresholds: 100%" in capsys.readouterr().err


def test_the_choice_is_the_best_of_the_official_protocol(case):
    """On a random release, against scoring the frames anew for every pair."""
    paths = {
        (video, frame - 1): case.root / "Annotations" / "mat" / video / f"{frame:05d}.mat"
        for video, frame in case.truth
    }
    nothing = parse_entries([], A2D)
    predictions = read_predictions(case.file, A2D)
    frames = [(path, predictions.get(key, nothing)) for key, path in sorted(paths.items())]
    annotations = [read_annotation(path) for path, _ in frames]
    best = None
    for actor in ACTOR_GRID:
        for action in ACTION_GRID:
            scores = [
                score_frame(
                    annotation,
                    A2D,
                    predictions=of_frame,
                    actor_threshold=actor,
                    action_threshold=action,
                )
                for annotation, (_, of_frame) in zip(annotations, frames, strict=True)
            ]
            score = summarize(scores, A2D)["segmentation"]["joint"]["mIoU"]
            if best is None or score > best.score:
                best = Thresholds(actor, action, score)
    assert choose_thresholds(frames, A2D, progress=False) == best
    assert best.score > 10


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="no frame"):
        choose_thresholds([], A2D)
    path = _write(tmp_path / "1.mat", [0])
    wrong = _entry([0], 0.5, 0.5) | {"segmentation": encode_mask(np.ones((2, 10), bool))}
    with pytest.raises(ValueError, match=r"1\.mat: a predicted segmentation is 2 x 10"):
        _choose(path, [wrong])
