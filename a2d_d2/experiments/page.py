"""The page of an experiment: tables, zero-shot bars, curves and frames in one HTML file."""

import html
from collections.abc import Mapping

from a2d_d2.experiments.systems import all_systems
from a2d_d2.experiments.tables import (
    LEVELS,
    MISSING,
    Table,
    all_tables,
    data_note,
    paper_tables,
    validation_metric,
)
from a2d_d2.label_space import LabelSpace
from a2d_d2.visualization.charts import chart_card
from a2d_d2.visualization.page import render_page
from a2d_d2.visualization.training_log import Curve

_BAR_NOTE = (
    "Each actor's action labels were left out of one training. Bars: average precision of its "
    "pairs in that network, in the full model, and in the full model with equal action scores; "
    "beside them the ratio of the first two (equation 3)."
)
_CURVE_NOTE = (
    "Scores on the held-out training videos, in percent, over the steps of each training. mIoU: of "
    "label maps, painted with the default thresholds; mAP, of boxes: where those paint nothing, or "
    "no mask head is trained."
)
_FRAME_NOTE = (
    "Test frames evenly spaced over the split, whatever their scores: frame, truth, the full model "
    "and Mask R-CNN on pairs, painted with the thresholds of each run, first seed. Predictions are "
    "shown as they are scored, one over another; of which little is left are left out."
)


def render_experiment(results: Mapping, zero_shot: str | None, frames: str | None) -> str:
    """The page as HTML text.

    Args:
        results: content of ``results.json``.
        zero_shot, frames: ``data:`` addresses of the two pictures; None leaves their sections out.
    """
    of_paper = paper_tables(results)
    others = [table for table in all_tables(results) if table not in of_paper]
    sections = [
        ("tables", "The paper's tables", _tables(of_paper)),
        ("zero-shot", "Zero-shot actions", _picture(zero_shot, _BAR_NOTE, "Zero-shot bars")),
        ("frames", "Frames", _picture(frames, _FRAME_NOTE, "Test frames with predictions")),
        ("curves", "Validation curves", _curves(results)),
        ("protocols", "Other protocols and cost", _tables(others)),
    ]
    code = {
        (record["code"]["revision"] or "unknown")
        + (" (changed)" if record["code"]["dirty"] else "")
        for system in results["systems"].values()
        for record in system["records"]
    }
    lead = data_note(results).replace("`", "").replace("**", "")
    footer = f"Code: {', '.join(sorted(code))}. Settings: {results['experiment'][:12]}."
    return render_page("Actor-action segmentation: experiments", lead, sections, footer=footer)


def _tables(tables: list[Table]) -> str:
    return "".join(_table(table) for table in tables)


def _table(table: Table) -> str:
    widths = [len(columns) for _, columns in table.groups]
    starts = {sum(widths[:i]) for i in range(len(widths))}
    blank = "<th></th>" * (2 if table.has_source else 1)
    head = ""
    if any(group for group, _ in table.groups):
        head = "".join(
            f'<th class="group first" colspan="{len(columns)}" scope="colgroup">'
            f"{html.escape(group)}</th>"
            for group, columns in table.groups
        )
        head = f"<tr>{blank}{head}</tr>"
    columns = [name for _, names in table.groups for name in names]
    head += f"<tr>{blank}" + "".join(
        f'<th scope="col"{_first(i, starts)}>{html.escape(name)}</th>'
        for i, name in enumerate(columns)
    )
    body = ""
    for name, source, cells in table.rows:
        body += f'<tr class="{source.split(" ")[0]}"><th scope="row">{html.escape(name)}</th>'
        if table.has_source:
            body += f'<td class="source">{html.escape(source)}</td>'
        body += "".join(
            f"<td{_first(i, starts)}>{'–' if cell == MISSING else html.escape(cell)}</td>"
            for i, cell in enumerate(cells)
        )
        body += "</tr>"
    return (
        f'<div class="card wide"><table><caption>{html.escape(table.title)}</caption>'
        f"<thead>{head}</tr></thead><tbody>{body}</tbody></table>"
        f'<p class="note">{html.escape(table.note)}</p></div>'
    )


def _first(i: int, starts: set[int]) -> str:
    return ' class="first"' if i in starts else ""


def _picture(address: str | None, note: str, name: str) -> str:
    if address is None:
        return ""
    return (
        f'<p class="note">{html.escape(note)}</p>'
        f'<div class="card picture"><img src="{address}" alt="{html.escape(name)}"></div>'
    )


def _curves(results: Mapping) -> str:
    systems = all_systems(LabelSpace.from_dict(results["label_space"]))
    cards = ""
    for name, summary in results["systems"].items():
        metric = validation_metric(systems[name], summary["records"])
        for record in summary["records"]:
            if record["weights_of"] and record["weights_of"] in results["systems"]:
                continue  # the same training
            points = {level: record["validation"].get(metric.format(level)) for level in LEVELS}
            curves = {
                level: Curve([step - 1 for step, _ in values], [value for _, value in values])
                for level, values in points.items()
                if values
            }
            if not curves:
                continue
            title = f"{summary['title']}, seed {record['seed']}: {metric.split('/')[-1]}"
            cards += chart_card(title, curves, ".1f")
    return cards and f'<p class="note">{_CURVE_NOTE}</p><div class="charts">{cards}</div>'
