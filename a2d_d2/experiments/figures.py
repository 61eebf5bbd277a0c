"""The two pictures: zero-shot bars (the paper's Figure 4) and the qualitative grid (Figure 3)."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from a2d_d2.data.release import load_release, read_annotation
from a2d_d2.data.video import read_frames
from a2d_d2.evaluation.predictions import parse_entries
from a2d_d2.experiments.measure import shown_frames
from a2d_d2.experiments.systems import all_systems
from a2d_d2.label_space import LabelSpace
from a2d_d2.visualization.canvas import picture_scale
from a2d_d2.visualization.instances import (
    labelled_regions,
    predicted_instances,
    truth_instances,
    visible_regions,
)
from a2d_d2.visualization.panels import Cell, grid, input_picture, regions_picture

CELL_WIDTH = 320
_COLORS = {"zero_shot": "#2563c9", "full": "#14805a", "chance": "#b9c0cb"}
_NAMES = {"zero_shot": "zero-shot", "full": "full model", "chance": "chance"}
_LINES = {"ecolor": "#1b2330", "error_kw": {"elinewidth": 1}}


def zero_shot_picture(zero_shot: Mapping[str, Mapping]) -> np.ndarray:
    """Bars of AP (zero-shot, full, chance) and of r_zs for each actor, as RGB.

    Of several seeds with their mean, and the standard deviation as a line.

    Args:
        zero_shot: of ``results.json``.
    """
    actors = list(zero_shot)
    places = np.arange(len(actors))
    figure = Figure(figsize=(11, 4), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    deviations = {key: _deviations(zero_shot, key) for key in (*_NAMES, "r_zs")}
    for i, key in enumerate(_NAMES):
        heights = [zero_shot[actor][key] or 0 for actor in actors]
        bars = left.bar(
            places + (i - 1) * 0.27,
            heights,
            0.25,
            yerr=deviations[key],
            color=_COLORS[key],
            label=_NAMES[key],
            **_LINES,
        )
        labels = ["" if zero_shot[a][key] is None else f"{zero_shot[a][key]:.0f}" for a in actors]
        left.bar_label(bars, labels, fontsize=7, color="#5a6473", padding=1)
    lines = ", ± deviation of seeds" if any(deviations.values()) else ""
    left.set_ylabel(f"AP of the actor's pairs (%){lines}")
    left.legend(frameon=False, ncols=3, loc="upper left", bbox_to_anchor=(0, 1.12))
    ratios = [zero_shot[actor]["r_zs"] for actor in actors]
    bars = right.bar(
        places,
        [ratio or 0 for ratio in ratios],
        0.6,
        yerr=deviations["r_zs"],
        color=_COLORS["zero_shot"],
        **_LINES,
    )
    right.bar_label(bars, ["–" if r is None else f"{r:.2f}" for r in ratios], fontsize=8, padding=1)
    right.set_ylabel(r"$r_{zs}$ = AP zero-shot / AP full")
    for axes in (left, right):
        axes.set_xticks(places, actors, rotation=0 if len(actors) <= 9 else 60)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(length=0)
        axes.set_axisbelow(True)
        axes.grid(axis="y", color="#e2e5ea")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _deviations(zero_shot: Mapping[str, Mapping], key: str) -> list[float] | None:
    """Half the length of the lines on the bars; None where each has a single seed."""
    values = [figures["std"][key] for figures in zero_shot.values()]
    return None if not any(values) else [value or 0 for value in values]


def qualitative_picture(results: Mapping, root: str | Path) -> np.ndarray | None:
    """Rows of frame, truth and what each shown system predicts, as RGB; None if none has a record.

    The frames are those of :func:`a2d_d2.experiments.measure.shown_frames`; the predictions come
    from the record of the first seed.

    Raises:
        ValueError: the release or one of its clips cannot be read.
    """
    space = LabelSpace.from_dict(results["label_space"])
    shown = [system for system in all_systems(space).values() if system.is_shown]
    if not any(system.name in results["systems"] for system in shown):
        return None
    rows = []
    for record in shown_frames(load_release(root, "test", space, progress=False)):
        index = record["frame_index"]
        frames = read_frames(record["file_name"], [index])
        if index not in frames:
            raise ValueError(f"{record['file_name']} ends before its annotated frame {index + 1}")
        frame = frames[index]
        scale = picture_scale(frame.shape[1], CELL_WIDTH)
        truth = labelled_regions(truth_instances(read_annotation(record["label_map_file"]), space))
        row = [
            Cell(input_picture(frame, scale), record["image_id"]),
            Cell(regions_picture(frame, truth, space, scale), "truth"),
        ]
        for system in shown:
            caption = "ours" if system.name == "full" else system.title
            if system.name not in results["systems"]:
                row.append(Cell(None, f"{caption} (not run)"))
                continue
            of_system = results["systems"][system.name]["records"][0]
            entries = [
                (number, entry)
                for number, entry in enumerate(of_system["shown"], 1)
                if (entry["video_id"], entry["frame"] - 1) == (record["video_id"], index)
            ]
            thresholds = of_system["thresholds"]
            regions = visible_regions(
                labelled_regions(
                    predicted_instances(parse_entries(entries, space), frame.shape[:2], space),
                    actor_threshold=thresholds["actor"],
                    action_threshold=thresholds["action"],
                )
            )
            row.append(Cell(regions_picture(frame, regions, space, scale), caption))
        rows.append(row)
    return grid(rows)
