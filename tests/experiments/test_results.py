"""Means and tables of records made by hand."""

import json
import shutil

import numpy as np
import pytest

from a2d_d2.experiments.figures import zero_shot_picture
from a2d_d2.experiments.outputs import write_outputs
from a2d_d2.experiments.page import render_experiment
from a2d_d2.experiments.records import describe_data, read_records, write_record
from a2d_d2.experiments.results import combine, summarize_records
from a2d_d2.experiments.tables import LEVELS, all_tables, readme_block, tables_markdown
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.repository import REPOSITORY
from a2d_d2.visualization.canvas import write_picture


def test_mean_and_deviation_by_hand():
    values = [{"a": {"x": 1.0, "y": None}, "b": 10}, {"a": {"x": 3.0, "y": 2.0}, "b": 14, "c": 1}]
    mean = combine(values, lambda numbers: sum(numbers) / len(numbers))
    assert mean == {"a": {"x": 2.0, "y": None}, "b": 12.0, "c": None}


def test_seeds_are_averaged(make_record):
    records = [make_record("full", seed, base) for seed, base in ((2, 40.0), (0, 50.0), (1, 60.0))]
    summary = summarize_records(records)["systems"]["full"]
    assert summary["seeds"] == [0, 1, 2]
    assert [record["seed"] for record in summary["records"]] == [0, 1, 2]
    joint = ("official", "segmentation", "joint", "mIoU")
    mean, std = summary["figures"]["mean"], summary["figures"]["std"]
    for key in joint:
        mean, std = mean[key], std[key]
    assert mean == pytest.approx(72.0)  # 50 + 20 + 2
    assert std == pytest.approx(10.0)  # sample: sqrt((100 + 0 + 100) / 2)
    assert summarize_records(records[:1])["systems"]["full"]["figures"]["std"] is None


def test_zero_shot_figures(make_record):
    records = [make_record("full", base=40.0), make_record("zero_shot-cat", base=10.0)]
    figures = {"zero_shot": 10.0, "full": 40.0, "chance": 5.0, "r_zs": 0.25}
    cat = {"seeds": [0], **figures, "std": dict.fromkeys(figures), "per_seed": [figures]}
    assert summarize_records(records)["zero_shot"] == {"cat": cat}
    # Other seeds of one of the two change nothing.
    more = [make_record("full", 1, 90.0), make_record("zero_shot-cat", 2, 90.0)]
    assert summarize_records([*records, *more])["zero_shot"] == {"cat": cat}
    more = [*more[:1], make_record("zero_shot-cat", 1, 20.0)]
    both = summarize_records([*records, *more])["zero_shot"]["cat"]
    assert (both["seeds"], both["zero_shot"], both["full"]) == ([0, 1], 15.0, 65.0)
    assert both["r_zs"] == pytest.approx(15 / 65)
    alone = summarize_records(records[1:])["zero_shot"]["cat"]
    figures |= {"full": None, "chance": None, "r_zs": None}
    assert alone == cat | figures | {"per_seed": [figures]}
    nothing = summarize_records([make_record("full", base=0.0), records[1]])["zero_shot"]["cat"]
    assert nothing["r_zs"] is None


def test_zero_shot_figures_of_several_seeds_have_deviations(make_record):
    records = [
        *(make_record("full", 0, 40.0), make_record("zero_shot-cat", 0, 10.0)),
        *(make_record("full", 1, 80.0), make_record("zero_shot-cat", 1, 30.0)),
        *(make_record("full", 2, 60.0), make_record("zero_shot-dog", 2, 30.0)),
    ]
    results = summarize_records(records)
    (table,) = [t for t in all_tables(results) if t.title.startswith("Zero-shot")]
    # Of 10 and 30: 20 / sqrt(2); of 40 and 80: 40 / sqrt(2); of 1/4 and 3/8: 1/8 / sqrt(2).
    assert _rows(table) == {
        ("cat", ""): ["20.0 ± 14.1", "60.0 ± 28.3", "5.0 ± 0.0", "0.33 ± 0.09", "2"],
        ("dog", ""): ["30.0", "60.0", "6.0", "0.50", "1"],
    }
    assert "r_zs is of these means" in table.note

    def lines(results):
        """Pixels of the deviations' dark blue: text is gray, bars are lighter."""
        picture = zero_shot_picture(results["zero_shot"]).astype(int)
        return ((picture.sum(axis=2) < 180) & (picture[..., 2] > picture[..., 0] + 9)).sum()

    assert lines(results) > 100
    assert lines(summarize_records([*records[:2], *records[4:]])) == 0  # one seed of each


def _rows(table):
    return {(name, source): list(cells) for name, source, cells in table.rows}


def test_tables_hold_measured_and_published_side_by_side(make_record):
    records = [make_record("full", 0, 40.0), make_record("full", 1, 60.0), make_record("tsmt")]
    tables = {table.title.split(".")[0]: table for table in all_tables(summarize_records(records))}
    one = _rows(tables["Table 1"])
    paper = "79.1 94.5 66.4 62.9 92.6 46.3 51.4 92.5 36.9"
    assert " ".join(one["full model", "published"]) == paper
    assert one["full model", "measured (2 seeds)"][0] == "50.0 ± 14.1"
    assert one["full model", "measured (2 seeds)"][8] == "72.0 ± 14.1"
    trilayer = "45.7 74.6 - 47.0 74.6 - 25.4 76.2 -"
    assert " ".join(one["Trilayer", "published only"]) == trilayer
    two = _rows(tables["Table 2"])
    assert two["TSMT", "measured"] == ["50.0", "51.0", "52.0"]
    assert two["TSCT", "measured"] == ["-", "-", "-"]
    assert two["full model", "published"] == ["77.2", "62.4", "55.5"]
    three = _rows(tables["Table 3"])
    assert three["without mask head + SharpMask", "published"][8] == "32.4"
    assert three["without mask head + GrabCut", "measured"] == ["-"] * 9
    training = _rows(tables["Training"])
    assert training["TSMT", ""] == ["0", "100", "1.5", "2 CPU cores", "0.5 / 0.2"]
    # TSMT has no masks: it is in the tables of boxes alone.
    assert ("TSMT", "") in _rows(tables["Average precision of boxes by COCO's protocol"])
    assert ("TSMT", "") not in _rows(tables["Average precision of masks by COCO's protocol"])
    med_vt = _rows(tables["Semantic segmentation by MED-VT's protocol"])
    assert med_vt == {("full model (2 seeds)", ""): ["50.0 ± 14.1", "51.0 ± 14.1"] * 3}


def test_trainings_of_equal_time_stand_beside_those_of_equal_steps(make_record):
    longer = make_record("no_flow-equal_time", base=30.0)
    longer["training"]["steps"] = 250
    records = [make_record("full", base=40.0), make_record("no_flow", base=20.0), longer]
    tables = {table.title: table for table in all_tables(summarize_records(records))}
    rows = _rows(tables["Table 3 at equal time"])
    assert {name: cells[8] for (name, _), cells in rows.items()} == {
        "full model": "62.0",
        "without flow stream, 100 steps": "42.0",
        "without flow stream, equal time, 250 steps": "52.0",
    }
    without = all_tables(summarize_records(records[:2]))
    assert "Table 3 at equal time" not in [table.title for table in without]
    detectors = [make_record("tshr", base=20.0), make_record("tshr-equal_time", 1, 30.0)]
    tables = {t.title: t for t in all_tables(summarize_records([*records[:1], *detectors]))}
    assert "Table 3 at equal time" not in tables
    assert _rows(tables["Table 2 at equal time"]) == {
        ("full model", ""): ["40.0", "41.0", "42.0"],
        ("TSHR, 100 steps", ""): ["20.0", "21.0", "22.0"],
        ("TSHR, equal time, 100 steps", ""): ["30.0", "31.0", "32.0"],
    }


def test_validation_half_way_and_at_the_end(make_record):
    def record(name, seed, **curves):
        return make_record(name, seed) | {"validation": curves}

    joint = "segmentation/joint/mIoU"
    records = [
        record("full", 0, **{joint: [[30, 10.0], [60, 40.0], [90, 50.0], [120, 55.0]]}),
        record("full", 1, **{joint: [[60, 42.0], [120, 51.0]]}),
        record("tsmt", 0, **{"detection/joint/mAP": [[55, 30.0], [100, 29.0]]}),
        record("no_mask_grabcut", 0, **{"detection/joint/mAP": [[55, 30.0], [100, 29.0]]}),
        record("no_flow", 0, **{joint: [[120, 20.0]]}),  # one evaluation says nothing of a curve
        record("mask_rcnn", 0),
    ]
    records[3]["weights_of"] = "tsmt"
    (table,) = [
        t for t in all_tables(summarize_records(records)) if t.title == "Was training long enough?"
    ]
    assert _rows(table) == {
        ("TSMT", ""): ["joint mAP", "30.0", "29.0", "-1.0", "-1.0", "1"],
        # Gains of 15 and 9, of which 5 and 9 in the last interval.
        ("full model", ""): ["joint mIoU", "41.0", "53.0", "+12.0 ± 4.2", "+7.0 ± 2.8", "2"],
    }


def test_validation_of_shared_weights_is_of_what_was_trained(make_record):
    curves = {"segmentation/joint/mIoU": [[50, 2.0], [100, 2.0]]}
    record = make_record("no_mask_grabcut", weights_of="tsmt")
    record["validation"] = curves | {"detection/joint/mAP": [[50, 30.0], [100, 41.0]]}
    title = "Was training long enough?"
    (table,) = [t for t in all_tables(summarize_records([record])) if t.title == title]
    ((_, _, cells),) = table.rows
    assert cells == ["joint mAP", "30.0", "41.0", "+11.0", "+11.0", "1"]


def test_curves_are_of_the_figures_that_the_training_moves(make_record):
    """Not of label maps on which nothing is painted: they stand still from the first step on."""
    flat = {f"segmentation/{level}/mIoU": [[50, 2.0], [100, 2.0]] for level in LEVELS}
    moving = {f"detection/{level}/mAP": [[50, 30.0], [100, 41.5]] for level in LEVELS}
    pairs = make_record("mask_rcnn", validation=flat | moving)
    pairs["config"]["MODEL.CLASSES"] = "pairs"
    two_stage = make_record("no_mask_grabcut", weights_of="tsmt", validation=flat | moving)
    results = summarize_records([pairs, two_stage])
    text = render_experiment(results, None, None)
    for title in ("Mask R-CNN on pairs", "without mask head + GrabCut"):
        assert f"{title}, seed 0: mAP" in text
    assert "seed 0: mIoU" not in text
    # The table of the same name says the same.
    (table,) = [t for t in all_tables(results) if t.title == "Was training long enough?"]
    assert [cells[:3] for *_, cells in table.rows] == [["joint mAP", "30.0", "41.5"]] * 2


@pytest.mark.parametrize(
    ("system", "wanted"), [("tsct", ["Table 2", "boxes"]), ("mask_rcnn", ["boxes", "masks"])]
)
def test_notes_say_how_detections_of_pairs_are_scored(make_record, system, wanted):
    def noted(*records):
        tables = all_tables(summarize_records(records))
        return [table.title for table in tables if "with score 0" in table.note]

    record = make_record(system)
    assert noted(make_record("full"), record) == []
    record["config"]["MODEL.CLASSES"] = "pairs"
    titles = noted(make_record("full"), record)
    assert len(titles) == 2
    assert all(word in title for word, title in zip(wanted, titles, strict=True))


def test_results_are_made_again_of_their_own_file(make_record, tmp_path):
    for record in (make_record("full", base=40.0), make_record("zero_shot-cat", base=10.0)):
        write_record(tmp_path / "records", record)
    write_outputs(tmp_path, None)
    names = ("results.json", "tables.md", "index.html", "zero_shot.png")
    before = [(tmp_path / name).read_bytes() for name in names]
    shutil.rmtree(tmp_path / "records")
    for name in names[1:]:
        (tmp_path / name).unlink()
    write_outputs(tmp_path, None)
    assert [(tmp_path / name).read_bytes() for name in names] == before
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ValueError, match=r"results\.json holds no results; delete it"):
        write_outputs(tmp_path, None)


def test_frames_of_another_release_are_refused(make_record, tiny_release, tmp_path):
    record = make_record("tsmt")
    record["data"] = describe_data(tiny_release, LabelSpace.from_dict(record["label_space"]), 2)
    write_record(tmp_path / "records", record)
    grid = tmp_path / "qualitative.png"
    write_picture(grid, np.zeros((4, 4, 3), np.uint8))
    before = grid.read_bytes()
    # The same names and sizes of videos, made of another seed; then, a video more.
    other = tmp_path / "other"
    shutil.copytree(tiny_release, other)
    settings = json.loads((other / "synthetic.json").read_text())
    (other / "synthetic.json").write_text(json.dumps(settings | {"seed": 4}))
    words = r"other is not the release of the records in .* \(other synthetic\); give theirs"
    with pytest.raises(ValueError, match=words):
        write_outputs(tmp_path, other)
    shutil.copy(tiny_release / "synthetic.json", other)
    rows = (other / "videoset.csv").read_text()
    (other / "videoset.csv").write_text(rows + rows.splitlines()[-1].replace(",", "x,", 1) + "\n")
    with pytest.raises(ValueError, match=r"\(other videos, videos_sha256\)"):
        write_outputs(tmp_path, other)
    assert grid.read_bytes() == before
    assert not (tmp_path / "results.json").exists()  # nothing at all was written
    assert write_outputs(tmp_path, tiny_release).exists()


def test_the_exact_text_of_a_table(make_record):
    records = [make_record("full", base=40.0), make_record("zero_shot-dog", base=10.0)]
    text = tables_markdown(summarize_records(records))
    assert text.startswith(
        "# Results\n\nA release of farm, base `configs/base.yaml`: 8 training videos (24 annotated "
        "frames), 2 held-out videos (6 annotated frames), 4 test videos (12 annotated frames). "
        "**This is not A2D: the published figures are of A2D and are not comparable with the "
        "measured ones.**\n\n### What the paper finds\n\n"
    )
    assert "| finding " in text
    assert (
        "\n\n### Table 1. Semantic segmentation\n\nOfficial A2D protocol, percent; "
        "painting thresholds chosen for each run on the held-out training videos (one of every 5). "
        "Published: Tables 1 to 3 of the paper (ECCV 2018).\n\n| system     | figures        |"
    ) in text
    assert (
        "| system   |   zero-shot AP |   full AP |   chance AP |   r_zs |   seeds |\n"
        "|----------|----------------|-----------|-------------|--------|---------|\n"
        "| dog      |           10.0 |      40.0 |         6.0 |   0.25 |       1 |\n"
    ) in text
    assert "| full model | measured       |        40.0 |        41.0 |" in text


def test_notes_say_what_was_measured_on_what(make_record):
    record = make_record("full")
    record["data"] |= {"is_a2d": True, "hold_out": 0}
    del record["data"]["videos"]["val"]
    text = tables_markdown(summarize_records([record]))
    assert text.startswith("# Results\n\nA2D, base `configs/base.yaml`: 8 training videos")
    assert "not A2D" not in text
    assert "painting thresholds 0.7 (actor) and 0.3 (action), the defaults." in text
    assert "with the default thresholds" not in text  # they are the only ones
    record["data"] |= {"is_a2d": False, "synthetic": {"seed": 1}}
    assert "A synthetic release, base" in tables_markdown(summarize_records([record]))


def test_the_same_records_give_the_same_bytes(make_record, tmp_path):
    records = [make_record("full", 1, 40.0), make_record("full", 0), make_record("zero_shot-cat")]
    contents = []
    for name, order in (("a", records), ("b", records[::-1])):
        for record in order:
            write_record(tmp_path / name / "records", record)
        write_outputs(tmp_path / name, None)
        names = ("results.json", "tables.md", "index.html", "zero_shot.png")
        contents.append([(tmp_path / name / file).read_bytes() for file in names])
    assert contents[0] == contents[1]
    results = json.loads(contents[0][0])
    assert readme_block(results) == readme_block(summarize_records(records))
    # Again in a folder that has them: nothing changes.
    write_outputs(tmp_path / "a", None)
    assert (tmp_path / "a" / "results.json").read_bytes() == contents[0][0]


def test_records_of_different_settings_are_not_mixed(make_record, tmp_path):
    folder = tmp_path / "records"
    write_record(folder, make_record("full"))
    write_record(folder, make_record("tsmt", experiment="other"))
    with pytest.raises(ValueError, match="tsmt-seed0.json and full-seed0.json were made with diff"):
        read_records(folder)
    with pytest.raises(ValueError, match="holds no record; run the experiments first"):
        read_records(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["{", "[]", '{"system": 1}'])
def test_a_file_that_is_no_record_is_named(tmp_path, text):
    (tmp_path / "full-seed0.json").write_text(text)
    with pytest.raises(ValueError, match="full-seed0.json is no record of a run; delete it"):
        read_records(tmp_path)


def test_a_record_of_another_version_is_named(make_record, tmp_path):
    write_record(tmp_path, make_record("full", version=99))
    with pytest.raises(ValueError, match="full-seed0.json was written by another version"):
        read_records(tmp_path)


def test_names_with_odd_characters_are_good_for_files(make_record, tmp_path):
    write_record(tmp_path, make_record("zero_shot-big cat/dog"))
    assert (tmp_path / "zero_shot-big%20cat%2Fdog-seed0.json").exists()


def test_the_page_holds_everything_and_nothing_from_outside(make_record):
    records = [make_record("full"), make_record("no_flow", 2), make_record("tsmt")]
    for record in records[2:]:
        record["validation"] = {"detection/joint/mAP": [[100, 3.0]]}
    text = render_experiment(summarize_records(records), "data:image/webp;base64,AA==", None)
    for words in ("Table 1", "Table 2", "Table 3", "Training", "COCO", "MED-VT"):
        assert words in text
    assert text.count('<svg class="chart"') == 3  # a curve for each run
    assert "without flow stream, seed 2: mIoU" in text
    assert "TSMT, seed 0: mAP" in text
    assert 'id="zero-shot"' in text and 'id="frames"' not in text
    assert "http" not in text and "<script" not in text and "<link" not in text
    assert "not comparable with the measured ones" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"figures": None}, "figures"),
        ({"seed": "0"}, "seed"),
        ({"figures": {}}, "KeyError\\('official'\\)"),
        ({"training": {"steps": 5}}, "KeyError\\('seconds_of_steps'\\)"),
        ({"validation": [1]}, "AttributeError"),
        ({"shown": [{}]}, "KeyError\\('video_id'\\)"),
    ],
)
def test_a_record_that_is_not_whole_is_named(make_record, tmp_path, changes, words):
    write_record(tmp_path / "records", make_record("full", 1))
    assert write_outputs(tmp_path, None).exists()
    write_record(tmp_path / "records", make_record("full", **changes))
    path = tmp_path / "records" / "full-seed0.json"
    with pytest.raises(ValueError, match=f"{path} is no whole record .*{words}.*copy it again"):
        write_outputs(tmp_path, None)


@pytest.mark.parametrize("name", ["synthetic", "synthetic_long"])
def test_the_committed_tables_are_those_of_their_records(name):
    folder = REPOSITORY / "results" / name
    results = json.loads((folder / "results.json").read_text())
    records = [r for system in results["systems"].values() for r in system["records"]]
    assert sorted(map(json.dumps, records)) == sorted(
        map(json.dumps, json.loads(json.dumps(read_records(folder / "records"), sort_keys=True)))
    )
    assert (folder / "tables.md").read_text() == tables_markdown(results)
