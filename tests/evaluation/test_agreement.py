"""Against pycocotools where the protocols meet, and what must not change a score."""

import contextlib
import io
import json
import random
import runpy
from pathlib import Path

import numpy as np
import pycocotools.mask
import pytest
from detectron2.evaluation import DatasetEvaluators
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from a2d_d2.data.layout import read_annotation
from a2d_d2.data.registration import register_release
from a2d_d2.data.release_writer import write_annotation
from a2d_d2.evaluation.detection import FrameDetections, FrameTruth, detection_scores
from a2d_d2.evaluation.evaluators import ActorActionEvaluator
from a2d_d2.evaluation.predictions import encode_mask
from a2d_d2.evaluation.protocols import PROTOCOLS
from a2d_d2.evaluation.score_files import evaluate_files
from a2d_d2.label_space import LabelSpace

A2D = LabelSpace.a2d()


# ---------------------------------------------------------------- average precision


def scattered_frames(seed):
    """Frames whose detections are up to one a cell of a grid, so that none suppresses another.

    Most are near an instance, some overlap it too little, some are of another actor.
    """
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(15):
        cells = np.array([(x, y) for x in range(0, 300, 60) for y in range(0, 180, 60)])
        boxes = np.concatenate([cells, cells + rng.integers(15, 45, cells.shape)], axis=1) + 5.0
        actors, actions = rng.integers(0, 4, len(boxes)), rng.choice([0, 5, 6, 8], len(boxes))
        true = rng.random(len(boxes)) < 0.6
        truths.append(FrameTruth(boxes[true], actors[true], actions[true]))
        detected = rng.random(len(boxes)) < 0.8
        moved = boxes + rng.integers(-5, 6, boxes.shape)
        actors = np.where(rng.random(len(boxes)) < 0.8, actors, rng.integers(0, 4, len(boxes)))
        scores = rng.random((len(boxes), 9)) + 2 * (np.arange(9) == actions[:, None])
        found.append(
            FrameDetections(
                moved[detected],
                actors[detected],
                rng.random(detected.sum()),
                (scores / scores.sum(axis=1, keepdims=True))[detected],
            )
        )
    return truths, found


def coco_precision(truths, found, wanted, scores_of):
    """AP of one class in percent, at IoU 0.5 and 11 recalls; None without ground truth."""
    truth, detections = [], []
    for image, (true, detected) in enumerate(zip(truths, found, strict=True)):
        for box, actor, action in zip(true.boxes, true.actors, true.actions, strict=True):
            if wanted(actor, action):
                truth.append((image, box, 0.0))
        for i, score in enumerate(scores_of(detected)):
            if score is not None:
                detections.append((image, detected.boxes[i], score))
    if not truth:
        return None

    def index(entries):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(len(truths))],
            "categories": [{"id": 1}],
            "annotations": [
                {
                    "id": number,
                    "image_id": image,
                    "category_id": 1,
                    "iscrowd": 0,
                    "area": 1,
                    "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    "score": score,
                }
                for number, (image, box, score) in enumerate(entries, start=1)
            ],
        }
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(index(truth), index(detections), "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.params.recThrs = np.arange(11) * 0.1
        evaluation.params.maxDets = [1000]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e9]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    return 100 * evaluation.eval["precision"].mean()


@pytest.mark.parametrize("seed", [0, 1])
def test_average_precision_equals_pycocotools_where_nothing_overlaps(seed):
    """The official protocol is COCO's at IoU 0.5 and 11 recalls, but for suppression and claims.

    Here no two detections overlap, so neither makes a difference.
    """
    truths, found = scattered_frames(seed)
    means, per_class = detection_scores(truths, found, A2D)
    expected = {"actor": {}, "action": {}, "joint": {}}
    for k, actor in enumerate(A2D.actors):
        expected["actor"][actor] = coco_precision(
            truths,
            found,
            lambda x, y, k=k: x == k,
            lambda d, k=k: [s if x == k else None for x, s in zip(d.actors, d.scores, strict=True)],
        )
    for a, action in enumerate(A2D.actions):
        expected["action"][action] = coco_precision(
            truths,
            found,
            lambda x, y, a=a: y == a,
            lambda d, a=a: list(d.scores * d.action_scores[:, a]),
        )
    for (k, a), pair in zip(A2D.valid_pairs, A2D.pair_names, strict=True):
        expected["joint"][pair] = coco_precision(
            truths,
            found,
            lambda x, y, k=k, a=a: (x, y) == (k, a),
            lambda d, k=k, a=a: [
                s * p if x == k else None
                for x, s, p in zip(d.actors, d.scores, d.action_scores[:, a], strict=True)
            ],
        )
    for level, values in expected.items():
        present = [name for name, value in values.items() if value is not None]
        assert len(present) >= 4
        for name in present:
            assert per_class[level][name] == pytest.approx(values[name], abs=1e-6), name
        counted = [v or 0 for name, v in values.items() if (level, name) != ("action", "none")]
        assert means[level]["mAP"] == pytest.approx(sum(counted) / len(counted), abs=1e-6)
        assert 5 < means[level]["mAP"] < 95


# ---------------------------------------------------------------- masks and boxes


def blobs(count, size=(48, 64), seed=0):
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, *size), dtype=bool)
    for mask in masks:
        for _ in range(3):
            y, x = rng.integers(0, size[0] - 1), rng.integers(0, size[1] - 1)
            mask[y : y + rng.integers(1, 20), x : x + rng.integers(1, 20)] = True
    return masks


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_encoding_and_boxes_of_masks_equal_pycocotools(tmp_path):
    masks = blobs(12)
    for mask in masks:
        reference = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert encode_mask(mask) == reference | {"counts": reference["counts"].decode()}
    # The boxes that detections are compared with: those of the annotated masks.
    ids = [A2D.joint_ids[0]] * len(masks)
    write_annotation(tmp_path / "1.mat", np.where(masks.any(axis=0), ids[0], 0), masks, ids, A2D)
    boxes = read_annotation(tmp_path / "1.mat").boxes
    expected = pycocotools.mask.toBbox([encode_mask(mask) for mask in masks])
    assert np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist() == (
        expected.tolist()
    )


# ---------------------------------------------------------------- order


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scores_do_not_depend_on_the_order_of_frames(protocol, case, tmp_path):
    """The entries of a frame keep their order, by which equal scores are ranked."""

    def score(path):
        return evaluate_files(
            case.root, "test", A2D, predictions=path, protocol=protocol, progress=False
        )

    frames = {}
    for entry in case.predictions:
        frames.setdefault((entry["video_id"], entry["frame"]), []).append(entry)
    expected = score(case.file)
    for seed in (0, 1):
        keys = random.Random(seed).sample(sorted(frames), len(frames))
        assert keys != list(frames)
        path = tmp_path / f"{seed}.json"
        path.write_text(json.dumps([entry for key in keys for entry in frames[key]]))
        assert score(path) == expected


def test_the_evaluator_does_not_depend_on_the_order_of_frames(case, tmp_path):
    script = runpy.run_path(str(Path(__file__).parent / "evaluate_in_processes.py"))
    register_release("release_in_any_order", case.root, "test", A2D)
    work = list(script["clips_and_outputs"](case.root, case.file))
    files = []
    for name, order in (("given", work), ("backwards", work[::-1])):
        evaluators = DatasetEvaluators(
            [ActorActionEvaluator("release_in_any_order", str(tmp_path / name))]
        )
        for clip, output in order:
            evaluators.process([clip], [output])
        evaluators.evaluate()
        files.append(
            [(tmp_path / name / f"{f}.json").read_text() for f in ("metrics", "predictions")]
        )
    assert files[0] == files[1]
