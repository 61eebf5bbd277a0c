"""From predictions.json to pictures and the report page."""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from a2d_d2.data.flow import check_flow_method, compute_flow
from a2d_d2.data.release import load_release, read_annotation
from a2d_d2.data.video import read_frames
from a2d_d2.evaluation.predictions import (
    FrameKey,
    FramePredictions,
    parse_entries,
    read_predictions,
)
from a2d_d2.evaluation.rasterize import ACTION_THRESHOLD, ACTOR_THRESHOLD, rasterize_instances
from a2d_d2.evaluation.score_files import check_thresholds
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.files import write_text
from a2d_d2.utils.parallel import parallel_map
from a2d_d2.visualization.canvas import data_uri, write_picture
from a2d_d2.visualization.instances import (
    LabelledRegion,
    labelled_regions,
    predicted_instances,
    truth_instances,
)
from a2d_d2.visualization.panels import grid, result_cells
from a2d_d2.visualization.report import GalleryEntry, Report, render_report
from a2d_d2.visualization.training_log import read_training_log

# Below this number of frames, starting processes takes longer than comparing.
_FEW_FRAMES = 1000


def make_report(
    root: str,
    predictions_file: str,
    output: str,
    label_space: LabelSpace,
    *,
    split: str = "test",
    num_frames: int = 24,
    metrics_file: str = "",
    training_file: str = "",
    flow_method: str = "dis",
    actor_threshold: float = ACTOR_THRESHOLD,
    action_threshold: float = ACTION_THRESHOLD,
    progress: bool = True,
) -> Path:
    """Writes ``output/index.html`` and, for each frame shown, ``output/frames/<vid>_<%05d>.png``.

    Args:
        root: of the release that was predicted.
        predictions_file: of the evaluation, or anybody's in the same format.
        output: folder, made if it is missing.
        label_space: of the release.
        split: "train" or "test".
        num_frames: how many frames are shown.
        metrics_file: ``metrics.json`` of the evaluation; "" leaves the scores out.
        training_file: ``metrics.json`` of the training run; "" leaves its curves out.
        flow_method: one of ``a2d_d2.data.flow.FLOW_METHODS``, of the flow shown.
        actor_threshold, action_threshold: predictions below either are not drawn.
        progress: shows progress bars.

    Returns:
        The path of the page.

    Raises:
        ValueError: an input is missing or wrong; names the file, or the video and frame.
    """
    check_flow_method(flow_method)
    thresholds = {"actor_threshold": actor_threshold, "action_threshold": action_threshold}
    check_thresholds(**thresholds)
    metrics = read_metrics(metrics_file) if metrics_file else {}
    training = read_training_log(training_file) if training_file else {}
    frames = read_predictions(predictions_file, label_space)
    records = load_release(root, split, label_space, progress=progress)
    predictions = _align(frames, records, label_space, predictions_file, split)
    compare = functools.partial(_compare, label_space=label_space, thresholds=thresholds)
    scores = list(
        parallel_map(
            compare,
            list(zip(records, predictions, strict=True)),
            workers=0 if len(records) < _FEW_FRAMES else None,
            description="comparing",
            unit="frame",
            progress=progress,
        )
    )

    chosen = spread(scores, num_frames)
    gallery: dict[int, GalleryEntry] = {}
    with tqdm(total=len(chosen), desc="drawing", unit="frame", disable=not progress) as bar:
        for of_video in _group_by_video(records, chosen):
            # One pass over the clip: its chosen frames, and before each the one its flow needs.
            indices = {records[i]["frame_index"] for i in of_video}
            wanted = sorted(indices | {index - 1 for index in indices if index > 0})
            images = read_frames(records[of_video[0]]["file_name"], wanted)
            for i in of_video:
                gallery[i] = _draw_frame(
                    records[i],
                    predictions[i],
                    scores[i],
                    images,
                    label_space,
                    Path(output) / "frames",
                    thresholds,
                    flow_method,
                )
                bar.update()

    num_videos = len({record["video_id"] for record in records})
    num_instances = sum(len(record["annotations"]) for record in records)
    page = render_report(
        Report(
            label_space=label_space,
            summary=f"{len(records)} annotated frames with {num_instances} instances, of "
            f"{num_videos} videos of the {split} split.",
            gallery=[gallery[i] for i in chosen],
            selection=f"{len(chosen)} of the {len(records)} frames: all were ranked by their IoU, "
            "and these lie at equal steps from the best to the worst. The IoU of a frame is that "
            "of its pixels, averaged over the pairs in its truth or its prediction.",
            rule="An instance counts as predicted if its actor score is at least "
            f"{actor_threshold:g} and the score of its best valid action at least "
            f"{action_threshold:g}; the surer one lies on top. The number beside a predicted pair "
            "is p(actor) · p(action).",
            metrics=metrics,
            training=training,
        )
    )
    path = Path(output) / "index.html"
    write_text(path, page)
    return path


def frame_agreement(truth: np.ndarray, predicted: np.ndarray) -> float:
    """How well two (H, W) maps of joint ids agree, 0 to 1.

    The intersection over union of pixels, averaged over the pairs in either map, background left
    out; 1 if both are empty.
    """
    ids = np.setdiff1d(np.union1d(truth, predicted), [0])
    overlaps = [
        np.sum((truth == i) & (predicted == i)) / np.sum((truth == i) | (predicted == i))
        for i in ids
    ]
    return float(np.mean(overlaps)) if overlaps else 1.0


def spread(scores: Sequence[float], count: int) -> list[int]:
    """Indices of ``count`` scores at equal steps of rank, the best first and the worst last.

    Of equal scores the earlier ranks higher.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    places = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return order[places].tolist()


def _compare(
    job: tuple[dict, FramePredictions], *, label_space: LabelSpace, thresholds: Mapping[str, float]
) -> float:
    """The agreement of a frame's predictions with its annotation."""
    record, predictions = job
    truth = read_annotation(record["label_map_file"]).label_map
    try:
        painted = rasterize_instances(predictions, truth.shape, label_space, **thresholds)
    except ValueError as error:
        where = f"video {record['video_id']}, frame {record['frame_index'] + 1}"
        raise ValueError(f"{where}: {error}") from error
    return frame_agreement(truth, painted)


def _draw_frame(
    record: dict,
    predictions: FramePredictions,
    score: float,
    images: Mapping[int, np.ndarray],
    label_space: LabelSpace,
    folder: Path,
    thresholds: Mapping[str, float],
    flow_method: str,
) -> GalleryEntry:
    """Draws a frame into a file of ``folder`` and for the page."""
    index = record["frame_index"]
    if index not in images:
        raise ValueError(f"{record['file_name']} ends before its annotated frame {index + 1}")
    image = images[index]
    if index > 0:
        flow = compute_flow(images[index - 1], image, flow_method)
    else:  # nothing comes before the first frame
        flow = np.zeros((*image.shape[:2], 2), np.float32)
    annotation = read_annotation(record["label_map_file"])
    truth = labelled_regions(truth_instances(annotation, label_space))
    prediction = labelled_regions(
        predicted_instances(predictions, annotation.label_map.shape, label_space), **thresholds
    )
    cells = result_cells(image, flow, truth, prediction, label_space)
    name = f"{record['video_id']}_{index + 1:05d}.png"
    write_picture(folder / name, grid([cells], title=record["image_id"]))
    notes = ("", "", _listing(truth, label_space), _listing(prediction, label_space))
    return GalleryEntry(
        video_id=record["video_id"],
        frame=index + 1,
        score=score,
        cells=[
            (data_uri(cell.picture), cell.caption.capitalize() + note)
            for cell, note in zip(cells, notes, strict=True)
        ],
        size=cells[0].picture.shape[:2],
    )


def _listing(regions: Sequence[LabelledRegion], label_space: LabelSpace) -> str:
    names = sorted(label_space.pair_name(region.actor, region.action) for region in regions)
    return ": " + (", ".join(names) or "nothing")


def _group_by_video(records: Sequence[dict], chosen: Sequence[int]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for i in chosen:
        groups.setdefault(records[i]["video_id"], []).append(i)
    return list(groups.values())


def _align(
    frames: Mapping[FrameKey, FramePredictions],
    records: Sequence[dict],
    label_space: LabelSpace,
    source: str,
    split: str,
) -> list[FramePredictions]:
    """The predictions of each record, none for frames that the file leaves out."""
    keys = [(record["video_id"], record["frame_index"]) for record in records]
    unknown = sorted(set(frames) - set(keys))
    if unknown:
        video_id, index = unknown[0]
        raise ValueError(
            f"{source}: video {video_id}, frame {index + 1} is no annotated frame of the {split} "
            "split"
        )
    nothing = parse_entries([], label_space)
    return [frames.get(key, nothing) for key in keys]


def read_metrics(path: str) -> dict:
    try:
        with open(path, encoding="utf-8") as stream:
            metrics = json.load(stream)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError):
        metrics = None
    if isinstance(metrics, dict) and metrics.get("protocol", "official") != "official":
        raise ValueError(
            f"{path} holds scores of protocol {metrics['protocol']}; the page shows the official "
            "ones, which tools/evaluate.py writes without --protocol"
        )
    if not isinstance(metrics, dict) or "segmentation" not in metrics:
        raise ValueError(
            f"{path} holds no scores; --metrics takes the metrics.json of an evaluation "
            "(OUTPUT_DIR/inference), --training that of a training run (OUTPUT_DIR)"
        )
    per_class = metrics.get("per_class") or {}
    if not (
        _are_scores(metrics["segmentation"], 2)
        and _are_scores(metrics.get("detection"), 2)
        and isinstance(per_class, dict)
        and _are_scores(per_class.get("segmentation"), 3)
        and _are_scores(per_class.get("detection"), 2)
    ):
        raise ValueError(
            f"{path} holds scores that are no numbers; tools/evaluate.py writes others"
        )
    return metrics


def _are_scores(value, depth: int) -> bool:
    """Whether a value is a number, or an object of objects, ``depth`` deep, of such; or is null."""
    if value is None:
        return True
    if depth == 0:
        return type(value) in (int, float) and abs(value) <= 1e9
    return isinstance(value, dict) and all(_are_scores(each, depth - 1) for each in value.values())
