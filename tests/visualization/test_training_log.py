"""Training curves from Detectron2's metrics.json, and their charts."""

import json
import xml.etree.ElementTree as ET

import pytest

from a2d_d2.visualization.charts import line_chart, number, thin_out, ticks
from a2d_d2.visualization.training_log import Curve, read_training_log


def write_lines(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_scalars_become_curves(tmp_path):
    path = write_lines(
        tmp_path / "metrics.json",
        {"iteration": 19, "total_loss": 3.0, "lr": 0.1},
        {"iteration": 39, "total_loss": 2.0, "lr": 0.1, "segmentation/joint/mIoU": 40.0},
    )
    curves = read_training_log(path)
    assert curves["total_loss"] == Curve([19, 39], [3.0, 2.0])
    assert curves["segmentation/joint/mIoU"] == Curve([39], [40.0])


def test_a_resumed_run_replaces_what_it_repeats(tmp_path):
    old = [{"iteration": i, "total_loss": 1.0} for i in (19, 39, 59, 79)]
    new = [{"iteration": i, "total_loss": 2.0} for i in (49, 59)]
    curves = read_training_log(write_lines(tmp_path / "metrics.json", *old, *new))
    assert curves["total_loss"] == Curve([19, 39, 49, 59], [1.0, 1.0, 2.0, 2.0])


def test_older_iterations_within_one_write_cut_nothing(tmp_path):
    path = write_lines(
        tmp_path / "metrics.json",
        {"iteration": 19, "total_loss": 1.0},
        {"iteration": 39, "total_loss": 2.0},
        {"iteration": 30, "segmentation/joint/mIoU": 5.0},
    )
    assert read_training_log(path)["total_loss"].iterations == [19, 39]


def test_broken_last_line_and_nan_are_left_out(tmp_path):
    path = write_lines(
        tmp_path / "metrics.json",
        {"iteration": 19, "total_loss": 1.0, "loss_mask": float("nan")},
    )
    with path.open("a") as stream:
        stream.write('{"iteration": 39, "total_l')
    assert read_training_log(path) == {"total_loss": Curve([19], [1.0])}


def test_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 1, "lr": 1}\nnonsense\n{"iteration": 2, "lr": 1}\n')
    with pytest.raises(ValueError, match="line 2 is not a line of Detectron2's metrics.json"):
        read_training_log(path)


def test_a_log_of_junk_alone_is_named(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_bytes(b"\x00\xff\x93junk")
    with pytest.raises(ValueError, match=f"{path}: line 1 is not a line"):
        read_training_log(path)


def test_empty_log(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("")
    assert read_training_log(path) == {}


def test_ticks_are_round_and_inside():
    assert ticks(0, 10, 5) == [0, 2, 4, 6, 8, 10]
    assert ticks(0, 1999, 4) == [0, 500, 1000, 1500]
    assert ticks(-1, 1, 4) == [-1, -0.5, 0, 0.5, 1]
    assert [number(value) for value in (0, 0.0002, 0.5, 40, 1500)] == [
        "0",
        "2e-4",
        "0.5",
        "40",
        "1.5k",
    ]


def test_long_curves_are_averaged():
    curve = thin_out(Curve(list(range(1000)), [float(i % 2) for i in range(1000)]), 250)
    assert len(curve.values) == 250
    assert curve.values[:-1] == [0.5] * 249
    assert (curve.iterations[-1], curve.values[-1]) == (999, 1.0)


def test_chart_is_well_formed_and_places_points():
    svg = line_chart({"a<b": Curve([0, 99], [0.0, 10.0])}, title="Loss & co")
    root = ET.fromstring(svg)
    assert root.get("aria-label") == "Loss & co over 100 iterations; last values: a<b 10"
    path = next(element for element in root if element.get("class") == "line line-0")
    assert path.get("d") == "M32.0 143.0L245.8 8.0"  # lower left to nearly the upper right


@pytest.mark.parametrize("values", [[0.0], [5.0], [-2.0, -2.0]])
def test_chart_of_constant_curves(values):
    svg = line_chart({"x": Curve(list(range(len(values))), values)}, title="t")
    assert "nan" not in svg
    ET.fromstring(svg)
