from a2d_d2.evaluation.tables import class_tables, paper_tables

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
