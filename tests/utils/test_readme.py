"""The figures of the README are those of the results files."""

import json
from pathlib import Path

import pytest

from a2d_d2.utils.readme import demo_block, update_readme

ROOT = Path(__file__).parents[2]


def test_the_readme_holds_what_the_results_say():
    assert update_readme(ROOT) == (ROOT / "README.md").read_text(encoding="utf-8")


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
        update_readme(tmp_path)


def test_a_missing_block_is_named(tmp_path):
    (tmp_path / "README.md").write_text("no markers")
    folder = tmp_path / "results" / "demo"
    folder.mkdir(parents=True)
    summary = (ROOT / "results" / "demo" / "summary.json").read_text()
    (folder / "summary.json").write_text(json.dumps(json.loads(summary)))
    with pytest.raises(ValueError, match="results:demo"):
        update_readme(tmp_path)
