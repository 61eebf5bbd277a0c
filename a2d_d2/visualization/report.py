"""The report of an evaluation: one HTML page that needs no other file, no network and no script."""

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2

from a2d_d2.label_space import LabelSpace
from a2d_d2.visualization.charts import chart_card
from a2d_d2.visualization.flow import flow_wheel
from a2d_d2.visualization.page import render_page
from a2d_d2.visualization.training_log import Curve

KINDS = ("actor", "action", "joint")

# The charts of a training run: title, and Detectron2's scalars with their names in the chart.
CHARTS = {
    "Segmentation mIoU": {f"segmentation/{kind}/mIoU": kind for kind in KINDS},
    "Detection mAP": {f"detection/{kind}/mAP": kind for kind in KINDS},
    "Learning rate": {"lr": "last"},
    "Total loss": {"total_loss": "last"},
    "Actor loss": {"loss_cls": "last"},
    "Action loss": {"loss_action": "last"},
    "Mask loss": {"loss_mask": "last"},
    "Box and RPN losses": {
        "loss_box_reg": "boxes",
        "loss_rpn_cls": "RPN",
        "loss_rpn_loc": "RPN boxes",
    },
}


@dataclass(frozen=True)
class GalleryEntry:
    """One frame of the gallery.

    Attributes:
        video_id, frame: name of the video, 1-based number of the frame.
        score: agreement of prediction and truth in this frame, 0 to 1.
        cells: the ``data:`` address and the caption of each picture.
        size: (height, width) of the pictures.
    """

    video_id: str
    frame: int
    score: float
    cells: Sequence[tuple[str, str]]
    size: tuple[int, int]


@dataclass(frozen=True)
class Report:
    """What the page tells. Empty ``metrics`` or ``training`` leave their sections out.

    Attributes:
        summary: what was evaluated, one or two sentences.
        metrics: ``metrics.json`` of an evaluation, in percent.
        training: scalar's name to curve.
        gallery: frames, in the order of the page.
        selection: how they were chosen.
        rule: how predictions became what is drawn.
    """

    label_space: LabelSpace
    summary: str
    gallery: Sequence[GalleryEntry]
    selection: str
    rule: str
    metrics: Mapping = field(default_factory=dict)
    training: Mapping[str, Curve] = field(default_factory=dict)


def render_report(report: Report) -> str:
    """The page as HTML text, all names escaped."""
    sections = [
        ("scores", "Scores", _scores(report.metrics)),
        ("training", "Training", _training(report.training)),
        ("classes", "Scores by class", _classes(report.metrics, report.label_space)),
        ("frames", "Frames", _gallery(report)),
    ]
    return render_page(
        "Actor-action segmentation: results",
        report.summary,
        sections,
        top=_tiles(report.metrics),
        footer=report.rule,
    )


# -------------------------------------------------------------------- scores


def _figure(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.1f}"


def _lookup(metrics: Mapping, *keys: str):
    for key in keys:
        metrics = metrics.get(key) or {}
    return metrics if isinstance(metrics, (int, float)) else None


def _tiles(metrics: Mapping) -> str:
    tiles = [
        ("joint mIoU", _lookup(metrics, "segmentation", "joint", "mIoU")),
        ("joint detection mAP", _lookup(metrics, "detection", "joint", "mAP")),
        ("actor mIoU", _lookup(metrics, "segmentation", "actor", "mIoU")),
        ("action mIoU", _lookup(metrics, "segmentation", "action", "mIoU")),
    ]
    if all(value is None for _, value in tiles):
        return ""
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="card tile"><b>{_figure(value)}</b><span>{name}</span></div>'
            for name, value in tiles
        )
        + "</div>"
    )


def _scores(metrics: Mapping) -> str:
    tables = ""
    if metrics.get("segmentation"):
        columns = ("ave", "glo", "mIoU")
        groups = "".join(
            f'<th class="group first" colspan="3" scope="colgroup">{name}</th>'
            for name in ("Actor", "Action", "Joint (A,A)")
        )
        heads = "".join(
            f'<th scope="col"{first}>{column}</th>'
            for _ in KINDS
            for column, first in zip(columns, (' class="first"', "", ""), strict=True)
        )
        cells = "".join(
            f"<td{attribute}>{_figure(_lookup(metrics, 'segmentation', kind, column))}</td>"
            for kind in KINDS
            for column, attribute in zip(
                columns, (' class="first"', "", ' class="best"'), strict=True
            )
        )
        tables += (
            '<div class="card"><table><caption>Segmentation</caption>'
            f"<thead><tr><td></td>{groups}</tr><tr><th></th>{heads}</tr></thead>"
            f'<tbody><tr><th scope="row">This run</th>{cells}</tr></tbody></table></div>'
        )
    if metrics.get("detection"):
        figures = (_figure(_lookup(metrics, "detection", kind, "mAP")) for kind in KINDS)
        cells = "".join(f'<td class="first best middle">{figure}</td>' for figure in figures)
        tables += (
            '<div class="card"><table><caption>Detection</caption>'
            '<thead><tr><td></td><th class="group first" scope="col">Actors</th>'
            '<th class="group first" scope="col">Actions</th>'
            '<th class="group first" scope="col">Joint (A,A)</th></tr>'
            "<tr><th></th>" + '<th class="first middle">mAP</th>' * 3 + "</tr></thead>"
            f'<tbody><tr><th scope="row">This run</th>{cells}</tr></tbody></table></div>'
        )
    if not tables:
        return ""
    return (
        '<p class="note">In percent, by the official protocol of A2D, laid out as Tables 1 and 2 '
        "of the paper. ave: mean recall of pixels over classes; glo: share of pixels that are "
        "right; mIoU: mean intersection over union, background included; mAP: mean average "
        f'precision of boxes at an IoU of 0.5.</p><div class="pair">{tables}</div>'
    )


# -------------------------------------------------------------------- training


def _training(training: Mapping[str, Curve]) -> str:
    cards = ""
    for title, scalars in CHARTS.items():
        curves = {name: training[key] for key, name in scalars.items() if key in training}
        if not curves:
            continue
        cards += chart_card(title, curves, ".3g")
    if not cards:
        return ""
    return (
        '<p class="note">Scores of the evaluations during and after training in percent, learning '
        "rate and losses over the iterations, with the last value of each.</p>"
        f'<div class="charts">{cards}</div>'
    )


# -------------------------------------------------------------------- classes


def _bar(value: float | None, number: int) -> str:
    width = 0 if value is None else max(0.0, min(100.0, value))
    return f'<span class="track"><i class="line-{number}" style="width:{width:.1f}%"></i></span>'


def _bar_list(
    scores: Mapping[str, tuple[float | None, float | None]],
    colors: Mapping[str, str],
    attribute: str = "",
) -> str:
    """Classes with bars of IoU and AP, the best IoU first, classes without any score last."""

    def order(name: str) -> tuple:
        iou, average_precision = scores[name]
        first = iou if iou is not None else average_precision
        return first is None, -(first or 0.0), -(average_precision or 0.0), name

    items = []
    for name in sorted(scores, key=order):
        iou, average_precision = scores[name]
        swatch = (
            f'<i class="swatch" style="background:{colors[name]}"></i>' if name in colors else ""
        )
        label = html.escape(name)
        items.append(
            f'<li><span class="name" title="{label}">{swatch}{label}</span>'
            f"<span>{_bar(iou, 0)}{_bar(average_precision, 1)}</span>"
            f'<span class="value">{_figure(iou)} / {_figure(average_precision)}</span></li>'
        )
    return f'<ul class="bars{attribute}">{"".join(items)}</ul>'


def _classes(metrics: Mapping, label_space: LabelSpace) -> str:
    per_class = metrics.get("per_class") or {}
    names = {
        "actor": label_space.actors,
        "action": label_space.actions,
        "joint": label_space.pair_names,
    }
    scores = {}
    for kind in KINDS:
        recalls_and_ious = (per_class.get("segmentation") or {}).get(kind)
        precisions = (per_class.get("detection") or {}).get(kind)
        scores[kind] = {}
        for name in names[kind]:
            iou, precision = None, (precisions or {}).get(name)
            if recalls_and_ious is not None:
                if name in recalls_and_ious:
                    iou = (recalls_and_ious[name] or {}).get("IoU")
                else:  # not in the truth: its precision of 0 means nothing
                    precision = None
            if recalls_and_ious or precisions:
                scores[kind][name] = (iou, precision)
    if not any(scores.values()):
        return ""
    middle = label_space.num_actions // 2
    actor_colors = {
        name: _css_color(label_space, i, middle) for i, name in enumerate(label_space.actors)
    }
    colors = {
        label_space.pair_name(*pair): _css_color(label_space, *pair)
        for pair in label_space.valid_pairs
    }
    return (
        '<p class="note">Intersection over union of pixels and average precision of boxes, in '
        "percent; the best IoU first. A dash: the class does not occur in the truth.</p>"
        f'<div class="halves"><div class="card"><h3>Actors {_BAR_KEYS}</h3>'
        f"{_bar_list(scores['actor'], actor_colors)}</div>"
        f'<div class="card"><h3>Actions {_BAR_KEYS}</h3>'
        f"{_bar_list(scores['action'], {})}</div></div>"
        f'<div class="card"><h3>Pairs {_BAR_KEYS}</h3>'
        f"{_bar_list(scores['joint'], colors, ' columns')}</div>"
    )


_BAR_KEYS = (
    '<span class="keys"><span><i class="line-0"></i>IoU</span>'
    '<span><i class="line-1"></i>AP</span></span>'
)


def _css_color(label_space: LabelSpace, actor: int, action: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*label_space.color(label_space.joint_id(actor, action)))


# -------------------------------------------------------------------- gallery


def _gallery(report: Report) -> str:
    if not report.gallery:
        return ""
    entries = "".join(_entry(entry) for entry in report.gallery)
    return (
        f'<p class="note">{html.escape(report.selection)}</p>'
        f'<div class="legend">{_color_table(report.label_space)}{_wheel()}</div>'
        f'<div class="gallery">{entries}</div>'
    )


def _entry(entry: GalleryEntry) -> str:
    where = f"{entry.video_id}, frame {entry.frame}"
    height, width = entry.size
    figures = ""
    for address, caption in entry.cells:
        figures += (
            f'<figure><img src="{address}" alt="{html.escape(f"{caption} ({where})")}" '
            f'width="{width}" height="{height}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    return (
        f'<article class="card"><header><h3>{html.escape(where)}</h3>'
        f"<span>IoU {100 * entry.score:.0f} %</span></header>"
        f'<div class="strip">{figures}</div></article>'
    )


def _color_table(label_space: LabelSpace) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in label_space.actions)
    rows = ""
    for i, actor in enumerate(label_space.actors):
        cells = ""
        for j in range(label_space.num_actions):
            if label_space.valid[i, j]:
                name = html.escape(label_space.pair_name(i, j))
                color = _css_color(label_space, i, j)
                cells += (
                    f'<td><i class="swatch" role="img" aria-label="{name}" title="{name}" '
                    f'style="background:{color}"></i></td>'
                )
            else:
                cells += "<td></td>"
        rows += f'<tr><th scope="row">{html.escape(actor)}</th>{cells}</tr>'
    return (
        '<div class="card colors"><table><caption>Colours of the pairs</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _wheel() -> str:
    written, png = cv2.imencode(".png", cv2.cvtColor(flow_wheel(208), cv2.COLOR_RGBA2BGRA))
    assert written
    address = "data:image/png;base64," + base64.b64encode(png.tobytes()).decode("ascii")
    return (
        '<div class="card wheel"><h3>Flow</h3>'
        f'<img src="{address}" width="104" height="104" alt="Colour wheel of flow: right is red, '
        'down yellow-green, left cyan, up violet; still is white"><p>Hue: direction.<br>'
        "Saturation: speed.</p></div>"
    )
