"""The figures of the README are those of the results files."""

import json
from pathlib import Path

import pytest

from a2d_d2.engine.demo import FULL, MINIATURE, SEED, demo_settings, settings_digest
from a2d_d2.experiments.tables import readme_block
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.readme import (
    BLOCKS,
    DOCUMENTS,
    demo_block,
    network_block,
    stages_block,
    take_over_demo,
    update_document,
    video_block,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_hold_what_the_results_say(document):
    assert update_document(ROOT, document) == (ROOT / document).read_text(encoding="utf-8")


def test_the_demo_has_still_the_settings_that_its_figures_were_made_with():
    figures = json.loads((ROOT / BLOCKS["demo"][0]).read_text())
    message = "run make demo in a new folder, then tools/update_readme.py --demo FOLDER"
    assert figures["settings_sha256"] == settings_digest(), message


def test_figures_of_another_demo_are_not_taken_over(tmp_path):
    demo = tmp_path / "demo"
    demo.mkdir()
    with pytest.raises(ValueError, match=r"summary\.json does not exist"):
        take_over_demo(demo, tmp_path)
    (demo / "summary.json").write_text('{"total_seconds": 700}')
    (demo / "demo.json").write_text(json.dumps(demo_settings(MINIATURE, SEED)))
    with pytest.raises(ValueError, match="another size, seed or configuration"):
        take_over_demo(demo, tmp_path)
    (demo / "demo.json").write_text(json.dumps(demo_settings(FULL, SEED)))
    take_over_demo(demo, tmp_path)
    taken = json.loads((tmp_path / BLOCKS["demo"][0]).read_text())
    assert taken["total_seconds"] == 700
    assert taken["settings_sha256"] == settings_digest()


def test_scores_stand_in_their_columns():
    scores = {
        "segmentation": {
            level: {"ave": i + 0.11, "glo": i + 0.22, "mIoU": i + 0.33}
            for i, level in enumerate(("actor", "action", "joint"))
        },
        "detection": {level: {"mAP": 50.0} for level in ("actor", "action", "joint")},
    }
    sizes = {"train_videos": 9, "test_videos": 4, "cores": 2}
    times = {"training_seconds": 90, "total_seconds": 120}
    block = demo_block(scores | sizes | times)
    cells = [cell.strip() for cell in block.splitlines()[4].split("|")]
    assert cells == ["", "joint", "2.1", "2.2", "2.3", "50.0", ""]
    assert "took 1.5 minutes on 2 CPU cores" in block


def test_a_missing_results_file_is_named(tmp_path):
    (tmp_path / "README.md").write_text("<!-- results:demo --><!-- /results:demo -->")
    with pytest.raises(ValueError, match=r"results/demo/summary\.json does not exist"):
        update_document(tmp_path, "README.md")


def test_the_experiments_come_once_their_results_are_there(tmp_path):
    for source, _ in BLOCKS.values():
        if (ROOT / source).is_file():
            (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / source).write_text((ROOT / source).read_text())
    names = [name for name in BLOCKS if name != "experiments"]
    text = "".join(f"<!-- results:{name} --><!-- /results:{name} -->" for name in names)
    (tmp_path / "README.md").write_text(text)
    source = tmp_path / BLOCKS["experiments"][0]
    source.unlink(missing_ok=True)
    assert "Table 1" not in update_document(tmp_path, "README.md")
    marked = text + "<!-- results:experiments -->old<!-- /results:experiments -->"
    (tmp_path / "README.md").write_text(marked)
    with pytest.raises(ValueError, match=r"results/synthetic/results\.json does not exist"):
        update_document(tmp_path, "README.md")
    results = {
        "data": {
            "videos": {"train": 1, "test": 1},
            "frames": {"train": 3, "test": 3},
            "hold_out": 0,
            "synthetic": {"seed": 0},
            "is_a2d": False,
            "label_space": "A2D",
        },
        "base": "configs/synthetic/R18_FPN.yaml",
        "label_space": LabelSpace.a2d().to_dict(),
        "systems": {},
        "zero_shot": {},
    }
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(json.dumps(results))
    written = update_document(tmp_path, "README.md")
    block = written.split("<!-- results:experiments -->")[1].split("<!-- /results")[0]
    assert block == f"\n{readme_block(results)}\n"
    assert "### Table 3. Ablations" in block
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(ValueError, match="no block <!-- results:experiments -->"):
        update_document(tmp_path, "README.md")


def test_a_missing_block_is_named(tmp_path):
    (tmp_path / "README.md").write_text("no markers")
    folder = tmp_path / "results" / "demo"
    folder.mkdir(parents=True)
    summary = (ROOT / "results" / "demo" / "summary.json").read_text()
    (folder / "summary.json").write_text(json.dumps(json.loads(summary)))
    with pytest.raises(ValueError, match="results:demo"):
        update_document(tmp_path, "README.md")


def test_figures_of_streaming_stand_side_by_side():
    def stream(detections, to_parts):
        return {
            "model": {"depth": 101, "window": 5},
            "machine": {"threads": 1},
            "frames": {
                "height": 320,
                "width": 568,
                "detections": detections,
            },
            "command": f"python tools/benchmark.py stream --detections {detections}",
            "ratios": {
                "streaming_to_parts": {"median": to_parts, "at_most": 1.15, "met": True},
                "naive_to_streaming": {"median": 3.4, "limit": 5},
                "streaming_to_mask_rcnn": {"median": 1.7, "at_most": 2.2, "met": True},
            },
        }

    peaks = {"short": {"frames": 9, "cpu_mib": 100.2}, "long": {"frames": 90, "cpu_mib": 101.0}}
    paths = ("streaming", "predict_video")
    memory = {
        "peaks": dict.fromkeys(paths, peaks),
        "ratios": dict.fromkeys(paths, {"cpu": {"ratio": 1.008, "met": True}}),
        "machine": {"threads": 1},
        "config_file": "small.yaml",
        "command": "python tools/benchmark.py memory --long 9",
        "frames": {"height": 64, "width": 80, "most_detections": 5},
    }
    results = {"stream_10": stream(10, 0.93), "stream": stream(100, 1.02), "memory": memory}
    lines = video_block(results | {"train": {}}).splitlines()
    assert lines[0] == "| ratio of times | 100 detections a frame | 10 detections a frame | goal |"
    parts = "| streaming / sum of its parts, each once a frame | 1.02 | 0.93 | at most 1.15 |"
    assert lines[2] == parts
    assert lines[3].endswith("| 3.40 | 3.40 | (limit: near 5) |")
    told = [line for line in lines if line.startswith("Peak memory of")]
    assert len(told) == 2
    assert "100 MiB for 9 frames, 101 MiB for 90, ratio 1.008 (goal: within 5%; met)" in told[0]
    assert "`python tools/benchmark.py stream --detections 10`" in lines[-1]
    assert lines[-1].endswith("`python tools/benchmark.py memory --long 9`.")
    assert video_block({}) == ""
    overall = {"frames": 7, "instances": 9, "scores": 1.2e-6, "boxes": 2e-7, "masks": 0.0}
    check = {"videos": {"x/a.mp4": {}, "b.avi": {}}, "overall": overall | {"pixels": 3e-5}}
    told = video_block({"check_streaming": check | {"tolerance": 1e-4, "command": "check"}})
    assert "7 frames and 9 instances of a.mp4, b.avi; largest difference of scores 1.2e-06" in told
    assert "(3.0e-05 pixels)" in told and "at most 0.0001" in told and "by `check`." in told


def test_the_command_that_a_result_holds_is_told():
    results = json.loads((ROOT / "results/benchmarks/cpu.json").read_text())
    results["command"] = "python tools/benchmark.py all --json x.json"
    assert stages_block(results).endswith(f"Written by `{results['command']}`.")
    train = results["stages"]["train"] | {"command": "python tools/benchmark.py train --repeats 9"}
    block = network_block({"train_R101": train})
    assert block.endswith(f"Written by `{train['command']}`.")
    both = network_block({"train_R101": train, "train_R101_gpu": train | {"command": "x"}})
    assert both.startswith(network_block({"train_R101": train})) and both.endswith("by `x`.")
