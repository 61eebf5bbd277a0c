"""The stages without a network: what they measure, on as little as can be."""

import json
import runpy
import shlex
from pathlib import Path

import pytest

from a2d_d2.benchmark import flow
from a2d_d2.benchmark.data import data_lines, measure_data
from a2d_d2.benchmark.evaluation import eval_lines, measure_eval
from a2d_d2.benchmark.flow import flow_lines, measure_flow
from a2d_d2.benchmark.imports import IMPORTS, import_lines, measure_import
from a2d_d2.benchmark.index import index_lines, measure_index
from a2d_d2.label_space import LabelSpace

TOOL = Path(__file__).parents[2] / "tools/benchmark.py"
EVAL = {"height": 40, "width": 56, "label_maps": 2, "frames": 3, "detections": 5, "repeats": 2}
EVAL |= {"space": LabelSpace.a2d()}


@pytest.fixture
def tool(monkeypatch, capsys):
    """tool(*arguments): exit code, standard output, last line of standard error."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["benchmark.py", *arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(TOOL), run_name="__main__")
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err.strip().splitlines()[-1:]

    return call


def check(result, lines, goals):
    """Every row is whole, says its goal, and stands in the lines; the result is JSON."""
    assert json.loads(json.dumps(result))["machine"]["torch"]
    assert [row["goal"] for row in result["rows"]] == goals
    for row in result["rows"]:
        assert row["measured"] > 0 and row["limit"] > 0 and row["ratio"] > 0
        assert sum(row["name"] in line and row["limit_name"] in line for line in lines) == 1


def test_rows_of_the_preparing_tool():
    tool = {"seconds": 5.0, "start": 2.0, "stored": 300, "busy_cores": 1.9}
    alone, busy = flow._tool_rows(tool, 2, 10.0)
    assert alone["measured"] == pytest.approx(20) and alone["ratio"] == pytest.approx(2)
    assert alone["goal"] == "at most 1.25 times" and busy["goal"] == "at least 1.8 cores"
    assert busy["measured"] == 1.9 and busy["limit"] == 2
    (only,) = flow._tool_rows(tool | {"start": 5.0}, 2, 10.0)
    assert only == busy


def test_flow():
    size = {"height": 64, "width": 80, "frames": 12, "videos": 1, "tool_videos": 2}
    result = measure_flow(**size, repeats=1, length=3, workers=1, progress=False)
    lines = flow_lines(result)
    tool = result["tool"]
    shown = 2 if tool["seconds"] > tool["start"] else 1  # of two tiny videos either may be longer
    check(result, lines, ["at most 1.25 times"] * shown + ["at least 0.9 cores"])
    assert tool["seconds"] > 0 < tool["start"] and tool["videos"] == 2
    assert 0 < tool["busy_cores"] < 3
    assert tool["stored"] > result["frames"]["stored"]
    per_frame = result["milliseconds_a_frame"]
    assert set(per_frame) == {
        *("prepare", "decode", "dis", "encode_frames", "encode_flow", "limit")
    }
    assert all(value > 0 for value in per_frame.values())
    assert 3 <= result["frames"]["stored"] <= 12
    assert sum("encoding flow" in line for line in lines) == 1


def test_data(small_cfg, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(small_cfg("INPUT.CLIP.LENGTH", 3).dump())
    sizes = {"height": 48, "width": 64, "full_height": 64, "full_width": 80}
    options = ["DATASETS.TRAIN", ("a2d_train",), "INPUT.MIN_SIZE_TRAIN", (56,)]
    result = measure_data(str(config), options, **sizes, videos=1, repeats=2, progress=False)
    check(result, data_lines(result), ["at most 1.5 times", "at least 1.8 cores"] * 2)
    for part in result["clips"].values():
        assert part["clips"] >= 3
        # frames and flow of each clip
        assert part["files"] == round(2 * part["frames"] * part["clips"])
        assert part["load_ms"] > part["decode_ms"]
        assert 1 < part["kib"] < 100


def test_eval():
    result = measure_eval(**EVAL, progress=False)
    goals = ["at least 400 frames/s"] * 2 + ["at most 10 s"]
    check(result, eval_lines(result), goals)


def test_index():
    result = measure_index(shrink=1000, repeats=2, space=LabelSpace.a2d(), progress=False)
    check(result, index_lines(result), ["at most 3 s", None])
    assert result["annotated_frames"] == 4 * 3 + 5 + 2 + 1


def test_import():
    imports = {"one": ("import json", "import json, csv", True), "two": ("0", "import csv", False)}
    result = measure_import(repeats=2, imports=imports, progress=False)
    check(result, import_lines(result), ["at most 0.3 s more", None])
    assert IMPORTS["import a2d_d2"][1].endswith("a2d_d2") and IMPORTS["import a2d_d2"][2]
    with pytest.raises(OSError, match="no_such_module"):
        measure_import(repeats=1, imports={"x": ("import no_such_module", "0", True)})


def test_all_is_one_table(tool, monkeypatch, tmp_path):
    monkeypatch.setattr("a2d_d2.benchmark.imports.measure_import.__kwdefaults__", _CHEAP)
    path, profile = tmp_path / "all.json", tmp_path / "profile"
    config = str(Path(__file__).parents[2] / "configs/synthetic/R18_FPN.yaml")
    command = ("--quick", "--config-file", config, "--width", "96", "--profile", str(profile))
    command += ("--json", str(path), "MODEL.FPN.OUT_CHANNELS", "8")
    status, printed, _ = tool("all", *command)
    assert status == 0
    result = json.loads(path.read_text())
    assert result["command"] == shlex.join(["python", "tools/benchmark.py", "all", *command])
    for name, stage in result["stages"].items():
        if name != "import":
            assert stage["config_file"] == config
            assert stage["options"][-2:] == ["MODEL.FPN.OUT_CHANNELS", "8"]
    assert result["stages"]["infer"]["release"] == {"height": 64, "width": 96}
    assert {path.name for path in profile.iterdir()} >= {"train_step.txt", "inference.txt"}
    assert list(result["stages"]) == ["flow", "data", "train", "infer", "eval", "index", "import"]
    assert result["rows"] == [row for x in result["stages"].values() for row in x["rows"]]
    table = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(result["rows"])
    assert set(result["rows"][0]) == {
        *("name", "measured", "unit", "limit", "limit_name", "ratio", "goal", "met")
    }


_CHEAP = {"imports": {"one": ("0", "import csv", True)}, "progress": False}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("flow", "--videos", "0"), "error: --videos is 0; it must be at least 1"),
        (("flow", "--workers", "0"), "error: --workers is 0; it must be at least 1"),
        (("data", "--full-width", "0"), "error: --full-width is 0; it must be at least 1"),
        (("eval", "--detections", "0"), "error: --detections is 0; it must be at least 1"),
        (("index", "--shrink", "0"), "error: --shrink is 0; it must be at least 1"),
        (("import", "--repeats", "0"), "error: --repeats is 0; it must be at least 1"),
        (("flow", "--tool-videos", "0"), "error: --tool-videos is 0; it must be at least 1"),
        (
            ("flow", "INPUT.FLOW_METHOD", "farneback"),
            "error: INPUT.FLOW_METHOD is farneback; only preparing with dis is measured: add "
            "INPUT.FLOW_METHOD dis",
        ),
        (
            ("index", "--shrink", "500", "DATASETS.LABEL_SPACE", "no.yaml"),
            "error: cannot read label space no.yaml: No such file or directory",
        ),
    ],
)
def test_a_wrong_argument_is_one_line(tool, arguments, message):
    status, _, (error,) = tool(*arguments)
    assert (status, error) == (2, message)
