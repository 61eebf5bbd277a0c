"""Scores as text, laid out as the paper's tables."""

from tabulate import tabulate

LEVELS = {"actor": "Actor", "action": "Action", "joint": "Joint (A,A)"}


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


def _table(rows: list[list], headers: list[str]) -> str:
    return tabulate(rows, headers, tablefmt="simple", floatfmt=".1f", missingval="-")
