"""The largest difference between two ways to detect."""

import json
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from a2d_d2.data import video
from a2d_d2.inference.check import ClipWise, Difference, difference

TOOL = Path(__file__).parents[2] / "tools/check_streaming.py"


def make_instances(*rows, masks=True):
    """Detections on 10 x 20 pixels: (actor, score, action scores, x1, columns of the mask)."""
    instances = Instances((10, 20))
    instances.pred_classes = torch.tensor([x[0] for x in rows], dtype=torch.int64)
    instances.scores = torch.tensor([x[1] for x in rows])
    instances.action_scores = torch.tensor([x[2] for x in rows]).reshape(-1, 2)
    boxes = [[x[3], 1.0, x[3] + 5, 8.0] for x in rows]
    instances.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    if masks:
        instances.pred_masks = torch.zeros(len(rows), 10, 20, dtype=torch.bool)
        for mask, row in zip(instances.pred_masks, rows, strict=True):
            mask[:, : row[4]] = True
    return instances


DOG, CAT = (6, 0.9, [0.2, 0.8], 3.0, 4), (5, 0.9, [0.5, 0.5], 3.0, 4)


@pytest.mark.parametrize(
    "first, second, expected",
    [
        ([DOG, CAT], [DOG, CAT], (2, 0, 0, 0)),
        ([DOG, CAT], [CAT, DOG], (2, 0, 0, 0)),  # in another order
        ([], [], (0, 0, 0, 0)),
        ([DOG], [(6, 0.8, [0.2, 0.8], 3.0, 4)], (1, 0.1, 0, 0)),
        ([DOG], [(6, 0.9, [0.5, 0.5], 3.0, 4)], (1, 0.3, 0, 0)),
        ([DOG], [(6, 0.9, [0.2, 0.8], 3.5, 5)], (1, 0, 0.5 / 20, 10 / 200)),
        ([DOG], [CAT], (1, 0.9, 0, 0)),
        ([DOG, (6, 0.3, [1.0, 0.0], 3.0, 4)], [DOG], (2, 0.3, 0, 0)),
        ([DOG], [(6, 0.4, [1.0, 0.0], 3.0, 4), DOG], (1, 0.4, 0, 0)),
        ([], [DOG], (0, 0.9, 0, 0)),
    ],
)
def test_by_hand(first, second, expected):
    found = difference(make_instances(*first), make_instances(*second))
    assert found.frames == 1
    values = (found.instances, found.scores, found.boxes, found.masks)
    assert found.pixels == pytest.approx(20 * found.boxes)
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_without_masks():
    pair = make_instances(DOG, masks=False), make_instances(DOG, masks=False)
    assert difference(*pair) == Difference(1, 1)


def test_over_several_frames_the_largest_counts():
    both = Difference(1, 3, 0.1, 0.0, 0.3, 0.0) | Difference(2, 1, 0.0, 0.2, 0.1, 4.0)
    assert both == Difference(3, 4, 0.1, 0.2, 0.3, 4.0)
    assert both.largest == 0.3
    assert str(both) == (
        "3 frames, 4 instances; largest difference: scores 1.0e-01, boxes 2.0e-01 of the longer "
        "side (4.0e+00 px), masks 3.0e-01 of the frame"
    )


# ---------------------------------------------------------------- the command


@pytest.fixture
def run(small_cfg, random_weights, tmp_path, monkeypatch, capsys):
    """run(*arguments): (exit code, lines of differences) for two videos of 3 and 2 frames."""
    config = tmp_path / "config.yaml"
    config.write_text(small_cfg("INPUT.MIN_SIZE_TEST", 64).dump())
    videos = []
    for count in (3, 2):
        videos.append(str(tmp_path / f"{count}.mp4"))
        writer = cv2.VideoWriter(videos[-1], cv2.VideoWriter_fourcc(*"mp4v"), 10, (80, 64))
        for i in range(count):
            writer.write(np.random.default_rng(i).integers(0, 256, (64, 80, 3), dtype=np.uint8))
        writer.release()

    def call(*arguments):
        command = ["check_streaming.py", *videos, "--config-file", str(config), *arguments]
        monkeypatch.setattr("sys.argv", command)
        status = runpy.run_path(str(TOOL))["main"]()
        lines = capsys.readouterr().out.splitlines()  # the log's among them
        return status, [line for line in lines if "largest difference" in line]

    return call


def test_the_command_prints_the_difference_of_each_video_and_overall(run, tmp_path):
    options = ["INPUT.CLIP.LENGTH", "3", "TEST.DETECTIONS_PER_IMAGE", "4"]
    status, lines = run("--every", "2", "--json", str(tmp_path / "out.json"), *options)
    assert status == 0
    written = json.loads((tmp_path / "out.json").read_text())
    paths = [str(tmp_path / name) for name in ("3.mp4", "2.mp4")]
    assert list(written["videos"]) == paths and written["options"] == options
    assert [x["frames"] for x in written["videos"].values()] == [2, 1]
    assert lines[-1] == f"overall: {Difference(**written['overall'])}"
    names = [line.split(": ")[0].rpartition("/")[2] for line in lines]
    assert names == ["3.mp4", "2.mp4", "overall"]
    for line, frames in zip(lines, (2, 1, 3), strict=True):
        assert f": {frames} frames, {4 * frames} instances; largest difference: scores" in line


def test_the_command_fails_when_a_difference_is_too_large(run, monkeypatch):
    def detect(self, path, result):
        instances = exact(self, path, result)
        instances.scores[-1] += 2e-4
        return instances

    exact = ClipWise.detect
    monkeypatch.setattr(ClipWise, "detect", detect)
    status, lines = run("--max-frames", "1")
    assert status == 1
    assert "scores 2.0e-04" in lines[-1] and ": 2 frames" in lines[-1]


def test_the_command_names_an_unknown_option(run):
    with pytest.raises(SystemExit, match="2"):
        run("--batchsize", "3")


def test_the_command_names_a_missing_video_before_it_waits(run, tmp_path, capsys):
    (tmp_path / "2.mp4").unlink()
    with pytest.raises(ValueError, match="there is no video .*2.mp4; check the path"):
        run("--weights", "none.pth")
    assert capsys.readouterr() == ("", "")


def test_the_command_names_a_json_file_that_cannot_be_written_before_it_waits(run, tmp_path):
    (tmp_path / "file").touch()
    for path, why in ((tmp_path, "it is a folder"), (tmp_path / "file/x.json", "choose a folder")):
        with pytest.raises(OSError, match=f"cannot write {tmp_path}.*: .*; .*") as error:
            run("--weights", "none.pth", "--json", str(path))
        assert why in str(error.value) and "\n" not in str(error.value)


def test_the_command_says_that_damage_ends_the_comparison(run, monkeypatch):
    def damaged(path):
        for index, (capture, _) in enumerate(exact(path)):
            yield capture, int(index == 2)

    exact = video.grab_past_damage
    monkeypatch.setattr(video, "grab_past_damage", damaged)
    _, lines = run()
    assert ": 2 frames" in lines[0] and lines[0].endswith(
        "nothing after its first damage was compared"
    )
    assert lines[1].endswith("of the frame")
    _, lines = run("--max-frames", "2")
    assert lines[0].endswith("of the frame")


def test_the_log_of_the_command_is_shown(run, monkeypatch):
    names = []
    monkeypatch.setattr("detectron2.utils.logger.setup_logger", lambda name: names.append(name))
    monkeypatch.setattr("a2d_d2.config.setup_cfg", lambda *_: pytest.fail(str(names)))
    with pytest.raises(pytest.fail.Exception, match="a2d_d2"):  # of a GPU that there is not, too
        run()


def test_the_command_does_not_pass_on_nothing(run):
    with pytest.raises(ValueError, match="--max-frames is 0; it must be at least 1"):
        run("--max-frames", "0")
    with pytest.raises(ValueError, match="nothing was detected, so nothing was compared"):
        run("--max-frames", "1", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "1.0")


def test_a_key_of_the_command_line_counts_more_than_weights(run):
    assert run("--max-frames", "1", "--weights", "none.pth", "MODEL.WEIGHTS", "")[0] == 0
