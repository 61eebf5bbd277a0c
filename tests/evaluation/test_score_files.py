"""tools/evaluate.py and what stands behind it."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from a2d_d2.evaluation.predictions import decode_mask
from a2d_d2.evaluation.protocols import PROTOCOLS
from a2d_d2.evaluation.score_files import evaluate_files, read_label_map

TOOL = Path(__file__).parents[2] / "tools" / "evaluate.py"
LEVELS = ("actor", "action", "joint")


def write_label_maps(case, folder, which=1):
    for (video_id, frame), maps in case.label_maps.items():
        path = folder / video_id / f"{frame:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), maps[which])
    return folder


def evaluate(case, **options):
    return evaluate_files(case.root, "test", case.space, progress=False, **options)


def reference_label_map(case, key):
    """The rule of painting, in plain words."""
    label_map = np.zeros_like(case.label_maps[key][0])
    entries = [e for e in case.predictions if (e["video_id"], e["frame"]) == key]
    for e in sorted(entries, key=lambda e: e["score"]):
        actor = case.space.actor_index(e["actor"])
        valid = [y for x, y in case.space.valid_pairs if x == actor]
        best = max(valid, key=lambda y: e["action_scores"][y])
        if e["score"] >= 0.7 and e["action_scores"][best] >= 0.3:
            label_map[decode_mask(e["segmentation"])] = 10 * (actor + 1) + best + 1
    return label_map


def assert_segmentation(scores, expected):
    for level in LEVELS:
        values = [scores["segmentation"][level][name] for name in ("ave", "glo", "mIoU")]
        assert values == pytest.approx(expected[level], abs=1e-9)


# ---------------------------------------------------------------- scores


def test_predictions_equal_the_reference(case, reference):
    scores = evaluate(case, predictions=case.file)
    maps = [(case.label_maps[key][0], reference_label_map(case, key)) for key in case.label_maps]
    assert any(predicted.any() for _, predicted in maps)
    assert_segmentation(scores, reference.segmentation(maps))
    frames = [
        (truth, [e for e in case.predictions if (e["video_id"], e["frame"]) == key])
        for key, truth in sorted(case.truth.items())
    ]
    for level, value in reference.detection(frames, case.space).items():
        assert value > 1
        assert scores["detection"][level]["mAP"] == pytest.approx(value, abs=1e-9)


def test_label_maps_equal_the_reference(case, reference, tmp_path):
    scores = evaluate(case, label_maps=write_label_maps(case, tmp_path))
    assert set(scores) == {"segmentation", "per_class"}
    assert_segmentation(scores, reference.segmentation(case.label_maps.values()))


def test_label_maps_go_before_masks(case, tmp_path):
    maps = write_label_maps(case, tmp_path / "maps")
    predictions = json.loads(case.file.read_text())
    for entry in predictions:
        del entry["segmentation"]
    boxes_only = tmp_path / "boxes.json"
    boxes_only.write_text(json.dumps(predictions))
    scores = evaluate(case, predictions=boxes_only, label_maps=maps)
    assert scores["segmentation"] == evaluate(case, label_maps=maps)["segmentation"]
    assert scores["detection"] == evaluate(case, predictions=case.file)["detection"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_processes_do_not_change_the_scores(protocol, case, monkeypatch):
    monkeypatch.setattr("a2d_d2.evaluation.score_files._FEW_FRAMES", 0)
    alone = evaluate(case, predictions=case.file, protocol=protocol, workers=0)
    assert evaluate(case, predictions=case.file, protocol=protocol, workers=2) == alone


def test_the_order_of_entries_of_other_frames_is_no_matter(case, tmp_path):
    by_frame = {}
    for entry in case.predictions:
        by_frame.setdefault((entry["video_id"], entry["frame"]), []).append(entry)
    turned = [entry for key in reversed(by_frame) for entry in by_frame[key]]
    (tmp_path / "p.json").write_text(json.dumps(turned))
    assert evaluate(case, predictions=tmp_path / "p.json") == evaluate(case, predictions=case.file)


def test_perfect_results_have_100(case, tmp_path):
    scores = evaluate(case, label_maps=write_label_maps(case, tmp_path, which=0))
    assert all(v == 100 for level in LEVELS for v in scores["segmentation"][level].values())


def test_no_predictions_at_all(case, tmp_path):
    (tmp_path / "p.json").write_text("[]")
    scores = evaluate(case, predictions=tmp_path / "p.json")
    assert scores["detection"] == {level: {"mAP": 0} for level in LEVELS}
    truth = np.stack([maps[0] for maps in case.label_maps.values()])
    assert scores["segmentation"]["joint"]["glo"] == pytest.approx(100 * (truth == 0).mean())
    assert scores["segmentation"]["joint"]["ave"] == pytest.approx(100 / len(np.unique(truth)))


def test_a_mask_may_be_null_but_this_is_said(case, tmp_path, caplog):
    entries = [entry | {"segmentation": None} for entry in case.predictions]
    (tmp_path / "p.json").write_text(json.dumps(entries))
    scores = evaluate(case, predictions=tmp_path / "p.json")
    assert f"{len(entries)} predictions have no segmentation" in caplog.text
    assert scores["detection"] == evaluate(case, predictions=case.file)["detection"]


def test_thresholds_are_passed_on(case):
    strict = evaluate(case, predictions=case.file, actor_threshold=2.0)
    nothing = evaluate(case, predictions=case.file, action_threshold=2.0)
    assert strict["segmentation"] == nothing["segmentation"]
    assert strict["segmentation"] != evaluate(case, predictions=case.file)["segmentation"]


def by_video(maps):
    """Lists of (truth, predicted) maps, one per video."""
    videos = {}
    for (video_id, _), pair in maps.items():
        videos.setdefault(video_id, []).append(pair)
    return videos.values()


def test_med_vt_of_label_maps_and_of_predictions(case, reference, tmp_path):
    maps = write_label_maps(case, tmp_path / "maps")
    painted = {
        key: (pair[0], reference_label_map(case, key)) for key, pair in case.label_maps.items()
    }
    figures = []
    for results, expected in (
        ({"label_maps": maps}, case.label_maps),
        ({"label_maps": maps, "predictions": case.file}, case.label_maps),
        ({"predictions": case.file}, painted),
    ):
        scores = evaluate(case, protocol="med-vt", **results)
        assert list(scores) == ["protocol", "segmentation", "per_class"]
        assert scores["protocol"] == "med-vt"
        for level, values in reference.med_vt(by_video(expected)).items():
            assert list(scores["segmentation"][level]) == ["mIoU", "pixel_IoU"]
            found = tuple(scores["segmentation"][level].values())
            assert found == pytest.approx(values, abs=1e-9)
        figures.append(scores["segmentation"]["joint"]["mIoU"])
    assert figures[0] == figures[1] != figures[2]
    strict = evaluate(case, protocol="med-vt", predictions=case.file, actor_threshold=2.0)
    assert strict["segmentation"]["joint"]["mIoU"] == 0


def test_coco_leaves_label_maps_and_thresholds_alone(case, tmp_path, caplog):
    alone = evaluate(case, predictions=case.file, protocol="coco")
    missing = tmp_path / "nowhere"
    both = evaluate(
        case, predictions=case.file, label_maps=missing, protocol="coco", actor_threshold=2.0
    )
    assert both == alone
    assert "the label maps are not read" in caplog.text


def test_coco_without_masks_says_so(case, tmp_path, caplog):
    entries = [entry | {"segmentation": None} for entry in case.predictions]
    (tmp_path / "p.json").write_text(json.dumps(entries))
    scores = evaluate(case, predictions=tmp_path / "p.json", protocol="coco")
    assert f"{len(entries)} predictions have no segmentation and count as boxes" in caplog.text
    assert scores["boxes"] == evaluate(case, predictions=case.file, protocol="coco")["boxes"]
    assert scores["masks"]["joint"]["AP"] is None


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_kinds_of_label_map(mode, tmp_path):
    values = np.array([[0, 11], [77, 14]], dtype=np.uint16 if mode == "I;16" else np.uint8)
    image = Image.fromarray(values)
    if mode == "P":
        image.putpalette([*range(255, -1, -1)] * 3)
    image.save(tmp_path / "a.png")
    assert (read_label_map(tmp_path / "a.png") == values).all()


# ---------------------------------------------------------------- the command line


def run_tool(monkeypatch, capsys, *arguments):
    """The exit code and the lines on standard error."""
    monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(TOOL), run_name="__main__")
    return stopped.value.code, capsys.readouterr()


def test_the_tool_writes_scores_and_prints_tables(case, tmp_path, monkeypatch, capsys):
    output = tmp_path / "new" / "m.json"
    options = ["--root", case.root, "--split", "test", "--predictions", case.file]
    status, printed = run_tool(monkeypatch, capsys, *options, "--output", output)
    assert status == 0
    assert json.loads(output.read_text()) == evaluate(case, predictions=case.file)
    assert "Joint (A,A)" in printed.out
    assert "dog-running" in printed.out


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_tool_takes_the_word_of_a_protocol(protocol, case, tmp_path, monkeypatch, capsys):
    options = ["--root", case.root, "--split", "test", "--predictions", case.file]
    options += ["--protocol", protocol, "--output", tmp_path / "m.json", "--no-progress"]
    status, printed = run_tool(monkeypatch, capsys, *options)
    assert status == 0
    scores = evaluate(case, predictions=case.file, protocol=protocol)
    assert json.loads((tmp_path / "m.json").read_text()) == scores
    text = f"{PROTOCOLS[protocol].tables(scores)}\n\nWritten to {tmp_path / 'm.json'}\n"
    assert printed.out == text
    if protocol == "official":
        assert scores == evaluate(case, predictions=case.file)
        assert "protocol" not in scores
    else:
        assert f"protocol {protocol}" in text.splitlines()[0]


def test_coco_needs_predictions(case, tmp_path, monkeypatch, capsys):
    options = ["--root", case.root, "--split", "test", "--protocol", "coco"]
    for results in ([], ["--label-maps", write_label_maps(case, tmp_path / "maps")]):
        output = ["--output", tmp_path / "m.json"]
        status, printed = run_tool(monkeypatch, capsys, *options, *results, *output)
        assert status == 2
        assert printed.err == (
            "error: protocol coco scores instances, not label maps: give --predictions\n"
        )


def test_an_unknown_protocol_is_refused(case):
    with pytest.raises(ValueError, match="no protocol 'voc'; choose one of official, med-vt, coco"):
        evaluate(case, predictions=case.file, protocol="voc")


@pytest.mark.parametrize("protocol", ["med-vt", "coco"])
def test_every_protocol_checks_the_masks(protocol, case, tmp_path):
    entries = json.loads(case.file.read_text())
    entries[-1]["segmentation"] = {"size": [3, 3], "counts": [9]}
    (tmp_path / "p.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match="video _Bcdefghijk, frame 13: .* 3 x 3, the frame 48 x"):
        evaluate(case, predictions=tmp_path / "p.json", protocol=protocol)


def test_the_tool_reads_the_annotations_alone(case, tmp_path):
    """In a process of its own, on a release without clips, from another folder."""
    root = tmp_path / "copy"
    shutil.copytree(case.root / "Annotations" / "mat", root / "Annotations" / "mat")
    shutil.copy(case.root / "videoset.csv", root)
    before = sorted(root.rglob("*"))
    command = [sys.executable, TOOL, "--root=copy", "--split=test", "--output=m.json"]
    command += [f"--predictions={case.file}"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert json.loads((tmp_path / "m.json").read_text()) == evaluate(case, predictions=case.file)
    assert sorted(root.rglob("*")) == before


def copy_of(case, tmp_path):
    shutil.copytree(case.root, tmp_path / "A2D")
    maps = write_label_maps(case, tmp_path / "maps")
    return tmp_path / "A2D", maps, json.loads(case.file.read_text())


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_entry(**changes):
    def plant(root, maps, entries):
        entries[-1].update(changes)

    return plant


def change_map(function):
    def plant(root, maps, entries):
        function(maps / "-bcdefghijk" / "00009.png")

    return plant


def change_annotation(function):
    def plant(root, maps, entries):
        function(root / "Annotations" / "mat" / "-bcdefghijk" / "00009.mat")

    return plant


def rewrite(change):
    def function(path):
        cv2.imwrite(str(path), change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)))

    return function


def put_label(values, label):
    values[0, 0] = label
    return values


MAP = "video -bcdefghijk, frame 9"
ENTRY = "video _Bcdefghijk, frame 13"


@pytest.mark.parametrize(
    ("plant", "named"),
    [
        (change_entry(video_id="nobodyknows"), ["video nobodyknows, frame 13"]),
        (change_entry(video_id="trainvideo0"), ["video trainvideo0, frame 13", "train split"]),
        (change_entry(frame=14), ["video _Bcdefghijk", "frame 14", "1, 5, 9, 13"]),
        (change_entry(frame=0), ["video _Bcdefghijk", "frame must be"]),
        (change_entry(score=None), [ENTRY, "score"]),
        (change_entry(segmentation={"size": [3, 3], "counts": [9]}), [ENTRY, "3 x 3", "48 x 64"]),
        (change_entry(segmentation={"size": [48, 64], "counts": "zz"}), [ENTRY, "segmentation"]),
        (change_map(os.remove), [MAP, "there is no label map"]),
        (change_map(truncate), [MAP, "not a sound PNG"]),
        (change_map(lambda path: path.write_bytes(b"")), [MAP, "not a sound PNG"]),
        (change_map(rewrite(lambda a: a[:-1])), [MAP, "47 x 64", "48 x 64"]),
        (change_map(rewrite(lambda a: np.stack([a] * 3, axis=2))), [MAP, "one channel"]),
        (change_map(rewrite(lambda a: put_label(a, 80))), [MAP, "label 80"]),
        (change_map(rewrite(lambda a: put_label(a, 10))), [MAP, "label 10"]),
        (change_annotation(truncate), [MAP, "00009.mat"]),
        (change_annotation(lambda path: path.write_bytes(b"no HDF5")), [MAP, "00009.mat"]),
        (lambda root, maps, entries: shutil.rmtree(maps), ["no folder of label maps"]),
        (lambda root, maps, entries: (root / "videoset.csv").unlink(), ["videoset.csv"]),
        (
            lambda root, maps, entries: shutil.rmtree(root / "Annotations/mat/-bcdefghijk"),
            ["-bcdefghijk", "no annotations"],
        ),
    ],
)
def test_bad_input_is_one_line(plant, named, case, tmp_path, monkeypatch, capsys):
    root, maps, entries = copy_of(case, tmp_path)
    plant(root, maps, entries)
    predictions, output = tmp_path / "p.json", tmp_path / "m.json"
    predictions.write_text(json.dumps(entries))
    output.write_text("scores of an earlier run")
    options = ["--root", root, "--split", "test", "--predictions", predictions]
    options += ["--label-maps", maps, "--output", output]
    status, printed = run_tool(monkeypatch, capsys, *options)
    assert status not in (0, None)
    last = printed.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert all(words in last for words in named), last
    assert "Traceback" not in printed.err
    assert not output.exists()


def test_broken_json_names_the_file(case, tmp_path, monkeypatch, capsys):
    (tmp_path / "p.json").write_text('[{"video_id": ')
    options = ["--root", case.root, "--split", "test", "--predictions", tmp_path / "p.json"]
    status, printed = run_tool(monkeypatch, capsys, *options, "--output", tmp_path / "m.json")
    assert status == 2
    assert str(tmp_path / "p.json") in printed.err.splitlines()[-1]


def test_a_missing_mask_is_an_error_without_label_maps(case, tmp_path):
    entries = json.loads(case.file.read_text())
    del entries[0]["segmentation"]
    (tmp_path / "p.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match="video -bcdefghijk, frame 1: no segmentation") as error:
        evaluate(case, predictions=tmp_path / "p.json")
    assert str(error.value).count("frame 1") == 1  # said once


def test_something_must_be_given(case, tmp_path, monkeypatch, capsys):
    options = ["--root", case.root, "--split", "test", "--output", tmp_path / "m.json"]
    status, printed = run_tool(monkeypatch, capsys, *options)
    assert status == 2
    assert "--predictions" in printed.err.splitlines()[-1]


def test_the_output_does_not_replace_the_input(case, tmp_path, monkeypatch, capsys):
    path = shutil.copy(case.file, tmp_path / "p.json")
    options = ["--root", case.root, "--split", "test", "--predictions", path, "--output", path]
    status, _ = run_tool(monkeypatch, capsys, *options)
    assert status == 2
    assert path.read_bytes() == case.file.read_bytes()
    classes = tmp_path / "classes.yaml"
    classes.write_text("name: farm")
    options[-3:] = [path, "--label-space", classes, "--output", classes]
    status, printed = run_tool(monkeypatch, capsys, *options)
    assert status == 2 and "would replace" in printed.err
    assert classes.read_text() == "name: farm"
