"""The report page."""

import re

import numpy as np
import pytest

from a2d_d2.label_space import LabelSpace
from a2d_d2.visualization.canvas import data_uri
from a2d_d2.visualization.report import GalleryEntry, Report, render_report
from a2d_d2.visualization.training_log import Curve

A2D = LabelSpace.a2d()


def metrics():
    names = {"actor": A2D.actors, "action": A2D.actions, "joint": A2D.pair_names}
    return {
        "segmentation": {
            "actor": {"ave": 11.11, "glo": 12.22, "mIoU": 13.33},
            "action": {"ave": 21.11, "glo": 22.22, "mIoU": 23.33},
            "joint": {"ave": 31.11, "glo": 32.22, "mIoU": 33.33},
        },
        "detection": {"actor": {"mAP": 71.0}, "action": {"mAP": 72.0}, "joint": {"mAP": 73.0}},
        "per_class": {
            "segmentation": {
                kind: {name: {"recall": 1.0, "IoU": float(i)} for i, name in enumerate(of_kind)}
                for kind, of_kind in names.items()
            },
            "detection": {kind: dict.fromkeys(of_kind, 50.0) for kind, of_kind in names.items()},
        },
    }


def report(**changes):
    address = data_uri(np.zeros((8, 10, 3), np.uint8))
    entry = GalleryEntry("video", 12, 0.5, [(address, "Input"), (address, "Flow")], (8, 10))
    values = {
        "label_space": A2D,
        "summary": "Summary.",
        "gallery": [entry],
        "selection": "Selection.",
        "rule": "Rule.",
        "metrics": metrics(),
        "training": {
            "total_loss": Curve([19, 39], [3.0, 2.0]),
            "segmentation/joint/mIoU": Curve([39], [40.0]),
        },
    }
    return Report(**(values | changes))


def test_page_is_whole_and_needs_nothing_else(parse_page):
    text = render_report(report())
    page = parse_page(text)
    outside = re.sub(r"data:image/\w+;base64,[\w+/=]+", "", text)
    assert not re.search(r"//|url\(|@import|<script|<link", outside)
    for attributes in page.all("img"):
        assert attributes["src"].startswith("data:image/")
        assert attributes["alt"]
    targets = {attributes.get("id") for _, attributes in page.elements}
    for attributes in page.all("a"):
        assert attributes["href"][0] == "#"
        assert attributes["href"][1:] in targets
    assert len(page.all("svg")) == 2
    assert "prefers-color-scheme: dark" in text


def test_scores_stand_as_in_the_paper():
    tables = [
        re.findall(r"<td[^>]*>([\d.]+)</td>", row)
        for row in re.findall(r"<tbody>(.*?)</tbody>", render_report(report()))
    ]
    assert tables[0] == ["11.1", "12.2", "13.3", "21.1", "22.2", "23.3", "31.1", "32.2", "33.3"]
    assert tables[1] == ["71.0", "72.0", "73.0"]


def test_classes_are_sorted_and_absent_ones_last():
    values = metrics()
    del values["per_class"]["segmentation"]["actor"]["cat"]  # not in the truth
    text = render_report(report(metrics=values))
    actors = re.search(r"<h3>Actors .*?</ul>", text)[0]
    others = [name for name in reversed(A2D.actors) if name != "cat"]
    assert re.findall(r'title="(\w+)"', actors) == [*others, "cat"]
    assert re.findall(r'"value">(.*?)</span>', actors)[-1] == "– / –"


def test_missing_inputs_leave_their_sections_out(parse_page):
    page = parse_page(render_report(report(metrics={}, training={}, gallery=[])))
    assert page.all("section") == []
    assert page.all("svg") == []
    only_pixels = {"segmentation": metrics()["segmentation"]}
    page = parse_page(render_report(report(metrics=only_pixels)))
    assert [section["id"] for section in page.all("section")] == ["scores", "training", "frames"]
    assert "Detection" not in page.text


@pytest.mark.parametrize("hostile", ['"><script>alert(1)</script>', "</style><b>", "a&b'c"])
def test_names_are_escaped(hostile, parse_page):
    space = LabelSpace.from_dict({"actors": [hostile], "actions": ["x", hostile]})
    address = data_uri(np.zeros((8, 10, 3), np.uint8))
    entry = GalleryEntry(hostile, 1, 0.5, [(address, f"Truth: {hostile}")], (8, 10))
    scores = {"segmentation": {}, "per_class": {"detection": {"actor": {hostile: 10.0}}}}
    changed = report(label_space=space, gallery=[entry], metrics=scores)
    text = render_report(changed)
    page = parse_page(text)
    assert not page.all("script")
    assert not page.all("b")
    assert f"{hostile}, frame 1" in page.text
    assert any(f"{hostile}, frame 1" in image["alt"] for image in page.all("img"))
