"""Scores as text: of the official protocol as the paper's tables, and of the other protocols."""

from tabulate import tabulate

LEVELS = {"actor": "Actor", "action": "Action", "joint": "Joint (A,A)"}


def official_tables(scores: dict) -> str:
    """The paper's tables, then those per class."""
    return f"{paper_tables(scores)}\n\n{class_tables(scores)}"


def paper_tables(scores: dict, name: str = "Ours") -> str:
    """The figures of ``metrics.json`` as the paper's Table 1 and, with detection, Table 2.

    Args:
        scores: of :func:`a2d_d2.evaluation.scoring.summarize`.
        name: of the row.
    """
    row, headers = [name], ["Approach"]
    for level, title in LEVELS.items():
        for i, metric in enumerate(("ave", "glo", "mIoU")):
            headers.append(f"{title if i == 0 else ''}\n{metric}")
            row.append(scores["segmentation"][level][metric])
    text = "Semantic segmentation\n" + _table([row], headers)
    if "detection" in scores:
        row = [name, *(scores["detection"][level]["mAP"] for level in LEVELS)]
        text += "\n\nDetection (mAP)\n" + _table([row], ["Method", *LEVELS.values()])
    return text


def markdown_table(scores: dict) -> str:
    """The figures of :func:`paper_tables` as one table in Markdown, a row a level."""
    rows = [
        [level, *scores["segmentation"][level].values(), scores["detection"][level]["mAP"]]
        for level in LEVELS
    ]
    return tabulate(rows, ["", "ave", "glo", "mIoU", "mAP"], tablefmt="github", floatfmt=".1f")


def class_tables(scores: dict) -> str:
    """The scores per class: recall and IoU of the pixels, and AP of the boxes."""
    pixels = scores["per_class"]["segmentation"]
    boxes = scores["per_class"].get("detection")
    tables = []
    for level, title in LEVELS.items():
        rows = [[name, *values.values()] for name, values in pixels[level].items()]
        if boxes:
            rows = [[*row, boxes[level].get(row[0])] for row in rows]
        tables.append(_table(rows, [title, "recall", "IoU", *(["AP"] if boxes else [])]))
    return "\n\n".join(tables)


def med_vt_tables(scores: dict) -> str:
    """The scores of :func:`a2d_d2.evaluation.med_vt.summarize`, then those per class."""
    rows = [[title, *scores["segmentation"][level].values()] for level, title in LEVELS.items()]
    tables = [
        "Semantic segmentation, protocol med-vt: mean over frames, then over videos\n"
        + _table(rows, ["Labels", "mIoU", "pixel IoU"])
    ]
    for level, title in LEVELS.items():
        values = scores["per_class"]["segmentation"][level]
        rows = [[name, figures["IoU"]] for name, figures in values.items()]
        tables.append(_table(rows, [title, "IoU"]))
    return "\n\n".join(tables)


def coco_tables(scores: dict) -> str:
    """The scores of :func:`a2d_d2.evaluation.coco.summarize`, then those per class."""
    headers = [f"{shape}\n{name}" for shape in ("box", "mask") for name in ("AP", "AP50", "AP75")]

    def row(name: str, boxes: dict, masks: dict) -> list:
        return [name, *boxes.values(), *masks.values()]

    rows = [
        row(title, scores["boxes"][level], scores["masks"][level])
        for level, title in LEVELS.items()
    ]
    tables = ["Average precision, protocol coco\n" + _table(rows, ["Classes", *headers])]
    per_class = scores["per_class"]
    for level, title in LEVELS.items():
        masks = per_class["masks"][level]
        rows = [row(name, boxes, masks[name]) for name, boxes in per_class["boxes"][level].items()]
        tables.append(_table(rows, [title, *headers]))
    return "\n\n".join(tables)


def _table(rows: list[list], headers: list[str]) -> str:
    return tabulate(rows, headers, tablefmt="simple", floatfmt=".1f", missingval="-")
