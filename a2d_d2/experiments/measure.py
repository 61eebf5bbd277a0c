"""From the files that a run's commands leave to the content of its record."""

import contextlib
import functools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from a2d_d2.data.layout import read_annotation
from a2d_d2.data.release import load_release
from a2d_d2.engine.provenance import describe_start, read_starts
from a2d_d2.evaluation.detection import average_precisions
from a2d_d2.evaluation.predictions import (
    FrameKey,
    FramePredictions,
    load_entries,
    parse_entries,
    read_predictions,
)
from a2d_d2.evaluation.rasterize import ACTION_THRESHOLD, ACTOR_THRESHOLD
from a2d_d2.evaluation.score_files import evaluate_files
from a2d_d2.evaluation.scoring import score_frame
from a2d_d2.evaluation.thresholds import choose_thresholds
from a2d_d2.evaluation.zero_shot import actor_precision, with_equal_actions
from a2d_d2.experiments.plan import Experiment, Run
from a2d_d2.experiments.records import (
    VERSION,
    flatten,
    without_places,
)
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.parallel import parallel_map
from a2d_d2.utils.repository import repository_name
from a2d_d2.visualization.training_log import read_training_log

NUM_SHOWN = 8  # frames of the qualitative grid
DEFAULTS = {"actor": ACTOR_THRESHOLD, "action": ACTION_THRESHOLD}
# Below this number of frames, starting processes takes longer than matching.
_FEW_FRAMES = 100


def make_record(experiment: Experiment, run: Run, *, progress: bool = True) -> dict:
    """Scores a run whose commands are through.

    Raises:
        ValueError: its files cannot be read.
    """
    space, system = experiment.label_space, run.system
    test = experiment.predictions(run, "test")
    thresholds = DEFAULTS | {"chosen_on": None}
    if system.has_masks and experiment.hold_out:
        chosen = _choose(experiment, experiment.predictions(run, "val"), progress)
        thresholds = asdict(chosen) | {"chosen_on": "a2d_val"}
    elif not system.has_masks:
        thresholds = None
    record = {
        "version": VERSION,
        "system": system.name,
        "seed": run.seed,
        "experiment": experiment.digest,
        "digest": experiment.run_digest(run),
        "base": repository_name(experiment.base),
        "options": system.options(),
        "user_options": without_places(experiment.options),
        "weights_of": system.weights_of or None,
        "config": flatten(experiment.run_config(run)),
        "label_space": space.to_dict(),
        "data": experiment.data,
        **training_origin(experiment.folder(experiment.trained(run))),
        "thresholds": thresholds,
        "figures": _figures(experiment, run, test, thresholds, progress),
        **training_facts(experiment.folder(experiment.trained(run))),
    }
    if system.name == "full":
        record["chance"] = chance_precisions(experiment.root, test, space, progress=progress)
    if system.is_shown:
        record["shown"] = _shown(experiment, test, thresholds)
    return record


def _choose(experiment: Experiment, predictions: Path, progress: bool):
    space = experiment.label_space
    of_frames = read_predictions(predictions, space)
    nothing = parse_entries([], space)
    frames = [
        (record["label_map_file"], of_frames.get(_key(record), nothing))
        for record in load_release(
            experiment.root, "val", space, progress=progress, hold_out=experiment.hold_out
        )
    ]
    return choose_thresholds(frames, space, progress=progress)


def _figures(
    experiment: Experiment, run: Run, predictions: Path, thresholds: dict | None, progress: bool
) -> dict:
    """Every protocol's figures; segmentation with the chosen and with the default thresholds."""

    def evaluate(protocol: str, of: dict | None) -> dict:
        of = of or DEFAULTS
        return evaluate_files(
            experiment.root,
            "test",
            experiment.label_space,
            predictions=predictions,
            actor_threshold=of["actor"],
            action_threshold=of["action"],
            protocol=protocol,
            progress=progress,
        )

    with _without_warnings(evaluate_files.__module__):  # that some have no mask is no news here
        figures = {"official": evaluate("official", thresholds), "coco": evaluate("coco", None)}
        if not run.system.has_masks:
            official = figures["official"]
            del official["segmentation"], official["per_class"]["segmentation"]
            return figures
        figures["med-vt"] = evaluate("med-vt", thresholds)
        figures["default thresholds"] = {
            protocol: evaluate(protocol, DEFAULTS)["segmentation"]
            for protocol in ("official", "med-vt")
        }
        return figures


@contextlib.contextmanager
def _without_warnings(name: str) -> Iterator[None]:
    """Keeps a logger to errors."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def chance_precisions(
    root: str | Path,
    predictions: Path,
    space: LabelSpace,
    *,
    progress: bool = True,
) -> dict[str, float]:
    """Zero-shot chance level of each actor: its pairs' AP if no action were known.

    The actors and boxes are those of ``predictions`` on the test split; the action scores are equal
    over the valid actions.
    """
    of_frames = read_predictions(predictions, space)
    nothing = parse_entries([], space)
    jobs = [
        (record["label_map_file"], of_frames.get(_key(record), nothing))
        for record in load_release(root, "test", space, progress=progress)
    ]
    matches = parallel_map(
        functools.partial(_chance_matches, space=space),
        jobs,
        workers=0 if len(jobs) < _FEW_FRAMES else None,
        description="chance level",
        unit="frame",
        progress=progress,
    )
    pairs = average_precisions(matches, space)[1]["joint"]
    return {actor: actor_precision(pairs, actor, space) for actor in space.actors}


def _chance_matches(job: tuple[str, FramePredictions], *, space: LabelSpace):
    path, predictions = job
    equal = with_equal_actions(predictions, space)
    return score_frame(read_annotation(path), space, predictions=equal).matches


def training_origin(folder: Path) -> dict:
    """Of a training: what its last start says, and, if others differ, all its "starts".

    A training of older code says nothing: this process stands for it.
    """
    starts = read_starts(folder) or [describe_start()]
    is_one = all(start == starts[-1] for start in starts)
    return starts[-1] | ({} if is_one else {"starts": starts})


def training_facts(folder: Path) -> dict:
    """Steps, time and validation curve of a training, from its logs.

    The time is that of the steps themselves, each as long as the log says of those around it.
    Evaluation, starting, and steps that were done twice because the run was stopped do not count.
    """
    logs = [folder / "actor_stage" / "metrics.json", folder / "metrics.json"]
    curves = [read_training_log(log) for log in logs if log.exists()]
    seconds, steps = 0.0, 0
    for of_stage in curves:
        steps += 1 + of_stage["total_loss"].iterations[-1]
        before = -1
        if "time" in of_stage:
            curve = of_stage["time"]
            for iteration, value in zip(curve.iterations, curve.values, strict=True):
                seconds += value * (iteration - before)
                before = iteration
    validation = {}
    last = curves[-1]
    num_steps = 1 + last["total_loss"].iterations[-1]
    for name, curve in last.items():
        if name.startswith(("segmentation/", "detection/")):
            # Evaluations say the step after which they came; that at the end counts on.
            steps_done = [min(i + 1, num_steps) for i in curve.iterations]
            validation[name] = sorted(dict(zip(steps_done, curve.values, strict=True)).items())
    return {
        "training": {"steps": steps, "seconds_of_steps": round(seconds, 1) or None},
        "validation": {name: [list(p) for p in points] for name, points in validation.items()},
    }


def shown_frames(records: Sequence[dict], count: int = NUM_SHOWN) -> list[dict]:
    """The records of the qualitative grid: evenly spaced over the split, whatever their scores."""
    chosen = np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int)
    return [records[i] for i in chosen]


def _shown(experiment: Experiment, predictions: Path, thresholds: dict) -> list[dict]:
    """The entries that are painted in the frames of the grid."""
    records = load_release(experiment.root, "test", experiment.label_space)
    entries = load_entries(predictions)
    shown = []
    for record in shown_frames(records):
        for _, entry in entries.get(_key(record), []):
            if entry["score"] >= thresholds["actor"]:
                shown.append(entry)
    return shown


def _key(record: dict) -> FrameKey:
    return record["video_id"], record["frame_index"]
