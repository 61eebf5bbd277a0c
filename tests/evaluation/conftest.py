"""An independent implementation of the protocol, in plain loops, and small releases to score."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from a2d_d2.data.release_writer import VideosetRow, write_annotation, write_videoset
from a2d_d2.evaluation.predictions import encode_mask
from a2d_d2.label_space import LabelSpace

# ---------------------------------------------------------------- the protocol, pixel by pixel


def reference_segmentation(pairs):
    """{level: (ave, glo, mIoU)} of (truth, predicted) maps of A2D's joint ids."""
    result = {}
    for level, label in {
        "actor": lambda joint: joint // 10,
        "action": lambda joint: joint % 10,
        "joint": lambda joint: joint,
    }.items():
        true, predicted, both, correct, total = {}, {}, {}, 0, 0
        for truth_map, predicted_map in pairs:
            for t, p in zip(
                truth_map.ravel().tolist(), predicted_map.ravel().tolist(), strict=True
            ):
                t, p = label(t), label(p)
                true[t] = true.get(t, 0) + 1
                predicted[p] = predicted.get(p, 0) + 1
                both[t] = both.get(t, 0) + (t == p)
                correct += t == p
                total += 1
        recalls = [both[c] / true[c] for c in true]
        ious = [both[c] / (true[c] + predicted.get(c, 0) - both[c]) for c in true]
        result[level] = tuple(
            100 * v for v in (sum(recalls) / len(recalls), correct / total, sum(ious) / len(ious))
        )
    return result


def reference_med_vt(videos):
    """{level: (mIoU, pixel IoU)} of lists of (truth, predicted) maps of A2D's joint ids."""
    result = {}
    for level, label in {
        "actor": lambda joint: joint // 10,
        "action": lambda joint: joint % 10,
        "joint": lambda joint: joint,
    }.items():
        of_videos = []
        for frames in videos:
            of_frames = []
            for truth_map, predicted_map in frames:
                correct, foreground, shared, either = 0, 0, {}, {}
                for t, p in zip(
                    truth_map.ravel().tolist(), predicted_map.ravel().tolist(), strict=True
                ):
                    t, p = label(t), label(p)
                    if t or p:
                        foreground += 1
                        correct += t == p
                    for c in {t, p} - {0}:
                        either[c] = either.get(c, 0) + 1
                        shared[c] = shared.get(c, 0) + (t == p)
                if foreground:
                    ious = [shared[c] / either[c] for c in either]
                    of_frames.append((sum(ious) / len(ious), correct / foreground))
            if of_frames:
                of_videos.append([sum(v[i] for v in of_frames) / len(of_frames) for i in (0, 1)])
        result[level] = tuple(100 * sum(v[i] for v in of_videos) / len(of_videos) for i in (0, 1))
    return result


def reference_iou(a, b):
    """Of [x, y, w, h] boxes, in the 1-based inclusive convention with + 1."""
    ax1, ay1, ax2, ay2 = a[0] + 1, a[1] + 1, a[0] + a[2], a[1] + a[3]
    bx1, by1, bx2, by2 = b[0] + 1, b[1] + 1, b[0] + b[2], b[1] + b[3]
    width = min(ax2, bx2) - max(ax1, bx1) + 1
    height = min(ay2, by2) - max(ay1, by1) + 1
    if width <= 0 or height <= 0:
        return 0.0
    inter = width * height
    area_a = (ax2 - ax1 + 1) * (ay2 - ay1 + 1)
    area_b = (bx2 - bx1 + 1) * (by2 - by1 + 1)
    return inter / (area_a + area_b - inter)


def reference_ap(frames):
    """AP of one class; frames are (truth boxes, [(score, box)])."""
    scored, num_truth = [], 0
    for truth, found in frames:
        num_truth += len(truth)
        kept = []
        for score, box in sorted(found, key=lambda pair: -pair[0]):
            if all(reference_iou(box, other) <= 0.3 for _, other in kept):
                kept.append((score, box))
        claimed = set()
        for box in truth:
            for i, (_, other) in enumerate(kept):
                if reference_iou(box, other) >= 0.5:
                    claimed.add(i)
                    break
        scored += [(score, i in claimed) for i, (score, _) in enumerate(kept)]
    if num_truth == 0:
        return 0.0
    scored.sort(key=lambda pair: -pair[0])
    points, hits = [], 0
    for i, (_, hit) in enumerate(scored):
        hits += hit
        points.append((hits / num_truth, hits / (i + 1)))
    total = 0.0
    for k in range(11):
        total += max([precision for recall, precision in points if recall >= k * 0.1], default=0.0)
    return 100 * total / 11


def reference_detection(frames, label_space):
    """{level: mAP}; frames are (truth [(box, actor, action)], entries of predictions.json)."""

    def ap(wanted, score):
        return reference_ap(
            [
                (
                    [box for box, actor, action in truth if wanted(actor, action)],
                    [(score(e), e["bbox"]) for e in entries if score(e) is not None],
                )
                for truth, entries in frames
            ]
        )

    def actor_of(entry):
        return label_space.actors.index(entry["actor"])

    actors = [
        ap(lambda x, y, k=k: x == k, lambda e, k=k: e["score"] if actor_of(e) == k else None)
        for k in range(label_space.num_actors)
    ]
    actions = [
        ap(lambda x, y, a=a: y == a, lambda e, a=a: e["score"] * e["action_scores"][a])
        for a in range(label_space.num_actions)
        if label_space.actions[a] != "none"
    ]
    joint = [
        ap(
            lambda x, y, k=k, a=a: (x, y) == (k, a),
            lambda e, k=k, a=a: e["score"] * e["action_scores"][a] if actor_of(e) == k else None,
        )
        for k, a in label_space.valid_pairs
    ]
    return {
        level: sum(values) / len(values)
        for level, values in {"actor": actors, "action": actions, "joint": joint}.items()
    }


@pytest.fixture(scope="session")
def reference():
    return SimpleNamespace(
        segmentation=reference_segmentation,
        med_vt=reference_med_vt,
        iou=reference_iou,
        ap=reference_ap,
        detection=reference_detection,
    )


# ---------------------------------------------------------------- releases to score

HEIGHT, WIDTH = 48, 64


def _random_box(rng):
    width, height = rng.integers(8, 33, 2)
    x, y = rng.integers(0, WIDTH - width + 1), rng.integers(0, HEIGHT - height + 1)
    return [int(v) for v in (x, y, width, height)]


def _mask(box):
    x, y, width, height = box
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y : y + height, x : x + width] = True
    return mask


def make_case(folder, seed=0):
    """A release of two test videos and a training video, and imperfect predictions for it.

    Returns its root, the predictions, the truth and label maps by (video, 1-based frame); some
    predicted masks have invalid pairs, scores repeat, one frame has no instance and one no
    prediction.
    """
    rng = np.random.default_rng(seed)
    space = LabelSpace.a2d()
    videos = {"-bcdefghijk": "test", "_Bcdefghijk": "test", "trainvideo0": "train"}
    case = SimpleNamespace(root=folder, space=space, truth={}, label_maps={}, predictions=[])
    rows = []
    for video_id, split in videos.items():
        rows.append(VideosetRow(video_id, 11, 0, 1, HEIGHT, WIDTH, 24, 4, split))
        for frame in (1, 5, 9, 13):
            count = 0 if (video_id[0], frame) == ("-", 5) else int(rng.integers(1, 4))
            pairs = [space.valid_pairs[i] for i in rng.integers(0, 12, count)]
            boxes = [_random_box(rng) for _ in pairs]
            masks = np.array([_mask(b) for b in boxes], dtype=bool).reshape(-1, HEIGHT, WIDTH)
            label_map = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            for mask, pair in zip(masks, pairs, strict=True):
                label_map[mask] = space.joint_id(*pair)
            path = folder / "Annotations" / "mat" / video_id / f"{frame:05d}.mat"
            write_annotation(path, label_map, masks, [space.joint_id(*p) for p in pairs], space)
            if split == "train":
                continue
            key = (video_id, frame)
            case.truth[key] = [(b, *p) for b, p in zip(boxes, pairs, strict=True)]
            noisy = label_map.copy()
            noisy[rng.random(noisy.shape) < 0.2] = rng.choice([0, 11, 14, 22, 37, 79])
            case.label_maps[key] = (label_map, noisy)
            if key == ("_Bcdefghijk", 9):
                continue
            for box, (actor, action) in zip(boxes * 4, pairs * 4, strict=True):
                box = [max(0, v + int(d)) for v, d in zip(box, rng.integers(-3, 4, 4), strict=True)]
                box[2], box[3] = min(box[2], WIDTH - box[0]), min(box[3], HEIGHT - box[1])
                actor = actor if rng.random() < 0.8 else int(rng.integers(0, 7))
                action_scores = rng.random(9) + 2 * (np.arange(9) == action)
                case.predictions.append(
                    {
                        "video_id": video_id,
                        "frame": frame,
                        "actor": space.actors[actor],
                        "score": round(float(rng.random()), 1),  # ties
                        "action_scores": (action_scores / action_scores.sum()).tolist(),
                        "bbox": box,
                        "segmentation": encode_mask(_mask(box)),
                    }
                )
    write_videoset(folder, rows)
    case.predictions.sort(key=lambda e: (e["video_id"], e["frame"]))
    case.file = folder / "predictions.json"
    case.file.write_text(json.dumps(case.predictions))
    return case


@pytest.fixture(scope="session")
def case(tmp_path_factory):
    """A case that no test may write into."""
    return make_case(tmp_path_factory.mktemp("case"))
