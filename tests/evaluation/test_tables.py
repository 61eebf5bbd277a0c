from a2d_d2.evaluation.tables import (
    class_tables,
    coco_tables,
    med_vt_tables,
    official_tables,
    paper_tables,
)

NINE = {"ave": 51.44, "glo": 92.5, "mIoU": 36.9}
SEGMENTATION = {"actor": NINE, "action": NINE, "joint": NINE}
PIXELS = {"dog": {"recall": 50.0, "IoU": 25.0}, "cat": {"recall": None, "IoU": None}}


def test_rows_of_the_paper():
    detection = {"actor": {"mAP": 77.2}, "action": {"mAP": 62.4}, "joint": {"mAP": 55.5}}
    first, second = paper_tables({"segmentation": SEGMENTATION, "detection": detection}).split(
        "\n\n"
    )
    assert first.splitlines()[-1].split() == ["Ours", *["51.4", "92.5", "36.9"] * 3]
    assert second.splitlines()[-1].split() == ["Ours", "77.2", "62.4", "55.5"]
    assert "Detection" not in paper_tables({"segmentation": SEGMENTATION})


def test_classes_without_ground_truth_have_a_dash():
    scores = {"per_class": {"segmentation": dict.fromkeys(SEGMENTATION, PIXELS)}}
    rows = [line.split() for line in class_tables(scores).splitlines()]
    assert ["dog", "50.0", "25.0"] in rows
    assert ["cat", "-", "-"] in rows
    scores["per_class"]["detection"] = dict.fromkeys(SEGMENTATION, {"dog": 75.0, "cat": 0.0})
    rows = [line.split() for line in class_tables(scores).splitlines()]
    assert ["dog", "50.0", "25.0", "75.0"] in rows
    assert ["cat", "-", "-", "0.0"] in rows


def test_official_tables_are_both():
    scores = {"segmentation": SEGMENTATION, "per_class": {"segmentation": {}}}
    scores["per_class"]["segmentation"] = dict.fromkeys(SEGMENTATION, PIXELS)
    assert official_tables(scores) == f"{paper_tables(scores)}\n\n{class_tables(scores)}"


def test_med_vt_names_itself():
    figures = dict.fromkeys(SEGMENTATION, {"mIoU": 39.54, "pixel_IoU": None})
    classes = dict.fromkeys(SEGMENTATION, {"dog": {"IoU": 25.0}, "cat": {"IoU": None}})
    text = med_vt_tables({"segmentation": figures, "per_class": {"segmentation": classes}})
    assert "protocol med-vt" in text.splitlines()[0]
    rows = [line.split() for line in text.splitlines()]
    assert ["Joint", "(A,A)", "39.5", "-"] in rows
    assert ["dog", "25.0"] in rows
    assert ["cat", "-"] in rows


def test_coco_names_itself():
    boxes = {"AP": 31.0, "AP50": 52.0, "AP75": 33.0}
    masks = dict.fromkeys(boxes)
    scores = {"boxes": dict.fromkeys(SEGMENTATION, boxes)}
    scores["masks"] = dict.fromkeys(SEGMENTATION, masks)
    scores["per_class"] = {
        "boxes": dict.fromkeys(SEGMENTATION, {"dog": boxes, "cat": masks}),
        "masks": dict.fromkeys(SEGMENTATION, {"dog": masks, "cat": masks}),
    }
    text = coco_tables(scores)
    assert "protocol coco" in text.splitlines()[0]
    rows = [line.split() for line in text.splitlines()]
    assert rows[1] == ["Classes", "box", "box", "box", "mask", "mask", "mask"]
    assert rows[2] == ["AP", "AP50", "AP75", "AP", "AP50", "AP75"]
    assert ["Actor", "31.0", "52.0", "33.0", "-", "-", "-"] in rows
    assert ["dog", "31.0", "52.0", "33.0", "-", "-", "-"] in rows
    assert ["cat", *"------"] in rows
