import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from a2d_d2.data.layout import FrameAnnotation
from a2d_d2.evaluation.coco import frame_instances, summarize
from a2d_d2.evaluation.predictions import encode_mask, parse_entries
from a2d_d2.evaluation.score_files import evaluate_files
from a2d_d2.label_space import LabelSpace

A2D = LabelSpace.a2d()
SIZE = (64, 64)
LEVELS = ("actor", "action", "joint")


def mask_of(box):
    x, y, width, height = box
    mask = np.zeros(SIZE, dtype=bool)
    mask[y : y + height, x : x + width] = True
    return mask


def entry(box, actor, score, action_scores, **changes):
    return {
        "video_id": "v",
        "frame": 1,
        "actor": actor,
        "score": score,
        "action_scores": action_scores,
        "bbox": box,
        "segmentation": encode_mask(mask_of(box)),
    } | changes


def frame(truth, entries, space=A2D):
    """Of [(box, actor name, action name)] and entries of predictions.json."""
    masks = np.array([mask_of(box) for box, *_ in truth], dtype=bool).reshape(-1, *SIZE)
    boxes = np.array([[x, y, x + w, y + h] for (x, y, w, h), *_ in truth], dtype=float)
    ids = [
        space.joint_id(space.actor_index(actor), space.action_index(action))
        for _, actor, action in truth
    ]
    label_map = np.zeros(SIZE, dtype=int)
    annotation = FrameAnnotation(label_map, masks, boxes.reshape(-1, 4), None, ids, [])
    predictions = parse_entries(list(enumerate(entries)), space)
    return frame_instances(annotation, space, predictions=predictions)


def score(*frames, space=A2D):
    return summarize({("v", i): one for i, one in enumerate(frames)}, space)


# Two dogs, of 20 x 50 pixels. The first is found exactly, the second with IoU 0.78.
DOGS = [([0, 0, 20, 50], "dog", "running"), ([30, 0, 20, 50], "dog", "none")]
FOUND = [
    entry([0, 0, 20, 50], "dog", 0.9, {"running": 0.5, "none": 0.1}),
    entry([0, 55, 9, 9], "dog", 0.8, {"running": 0.1, "none": 0.9}),
    entry([30, 0, 20, 39], "dog", 0.7, {"running": 0.9, "none": 0.8}),
]
ONE_OF_TWO = 51 / 101  # recalls 0 to 0.5 at precision 1
BOTH = (51 + 50 * 2 / 3) / 101  # and those up to 1 at 2/3


@pytest.mark.parametrize("shape", ["boxes", "masks"])
def test_scores_by_hand(shape, capsys):
    scores = score(frame(DOGS, FOUND))
    assert capsys.readouterr() == ("", "")  # no bar unless asked for
    assert list(scores) == ["protocol", "boxes", "masks", "per_class"]
    assert scores["protocol"] == "coco"
    # Ranks hit, miss, hit: both hits up to the threshold 0.75, the first alone at 0.80 to 0.95
    expected = {"AP": (6 * BOTH + 4 * ONE_OF_TWO) / 10, "AP50": BOTH, "AP75": BOTH}
    expected = {metric: 100 * value for metric, value in expected.items()}
    assert scores[shape]["actor"] == pytest.approx(expected)
    assert scores["per_class"][shape]["actor"]["dog"] == pytest.approx(expected)
    # Running: 0.63 for the third detection, 0.45 for the first, which is right: precision 1/2
    running = {"AP": 50, "AP50": 50, "AP75": 50}
    # None: 0.72 for the second, 0.56 for the third, which is right up to IoU 0.78: precision 1/2
    none = {"AP": 6 * 50 / 10, "AP50": 50, "AP75": 50}
    per_class = scores["per_class"][shape]
    for level, prefix in (("action", ""), ("joint", "dog-")):
        assert per_class[level][f"{prefix}running"] == pytest.approx(running)
        assert per_class[level][f"{prefix}none"] == pytest.approx(none)
        assert scores[shape][level] == pytest.approx({"AP": 40, "AP50": 50, "AP75": 50})
    assert per_class["actor"]["cat"] == {"AP": None, "AP50": None, "AP75": None}
    assert {level: len(per_class[level]) for level in LEVELS} == {
        "actor": 7,
        "action": 9,
        "joint": 43,
    }


def test_an_action_counts_for_every_actor_and_a_pair_for_its_own():
    cat = [entry([0, 0, 20, 50], "cat", 0.9, {"running": 1.0})]
    scores = score(frame(DOGS[:1], cat))
    assert scores["boxes"]["action"]["AP"] == pytest.approx(100)
    assert scores["boxes"]["joint"]["AP"] == scores["boxes"]["actor"]["AP"] == 0


def test_nothing_is_suppressed_and_a_hundred_detections_count():
    actions = {"running": 1.0}
    wrong = [entry([40, 40, 9, 9], "dog", 0.9, actions) for _ in range(100)]
    right = entry([0, 0, 20, 50], "dog", 0.8, actions)
    assert score(frame(DOGS[:1], wrong + [right]))["boxes"]["actor"]["AP"] == 0
    # 99 wrong ones that overlap each other all stay before it
    scores = score(frame(DOGS[:1], wrong[1:] + [right]))
    assert scores["boxes"]["actor"]["AP"] == pytest.approx(1)


def test_boxes_and_masks_differ():
    hollow = mask_of([0, 0, 20, 50])
    hollow[10:40, 5:15] = False  # IoU 0.7 with the dog
    found = [FOUND[0] | {"segmentation": encode_mask(hollow)}]
    scores = score(frame(DOGS[:1], found))
    assert scores["boxes"]["actor"]["AP"] == pytest.approx(100)
    assert scores["masks"]["actor"]["AP50"] == pytest.approx(100)
    assert scores["masks"]["actor"]["AP75"] == 0


def test_detections_without_a_mask():
    bare = [one | {"segmentation": None} for one in FOUND]
    some = score(frame(DOGS, [bare[0], *FOUND[1:]]))
    assert some["boxes"] == score(frame(DOGS, FOUND))["boxes"]
    # Mask detections are the second, a miss, and the third: one of two dogs at precision 1/2
    assert some["masks"]["actor"]["AP50"] == pytest.approx(100 * 51 / 2 / 101)
    nothing = score(frame(DOGS, bare))
    absent = {"AP": None, "AP50": None, "AP75": None}
    assert nothing["boxes"] == some["boxes"]
    assert nothing["masks"] == dict.fromkeys(LEVELS, absent)
    assert nothing["per_class"]["masks"]["actor"]["dog"] == absent
    # No detection at all is a bad result, not a missing one
    empty = score(frame(DOGS, []))
    assert empty["masks"]["actor"] == empty["boxes"]["actor"] == {"AP": 0, "AP50": 0, "AP75": 0}


def test_no_truth_has_no_figure():
    scores = score(frame([], FOUND))
    assert scores["boxes"]["joint"] == {"AP": None, "AP50": None, "AP75": None}


def test_other_label_space():
    space = LabelSpace.from_dict(
        {"actors": ["horse"], "actions": ["trotting", "falling"], "valid": {"horse": ["trotting"]}}
    )
    found = [entry([0, 0, 20, 50], "horse", 0.5, [1.0, 0.5])]
    scores = score(frame([([0, 0, 20, 50], "horse", "trotting")], found, space), space=space)
    assert list(scores["per_class"]["masks"]["joint"]) == ["horse-trotting"]
    assert scores["per_class"]["boxes"]["action"]["falling"]["AP"] is None
    assert scores["masks"]["action"]["AP"] == pytest.approx(100)


def test_a_mask_of_another_size_is_refused():
    wrong = FOUND[0] | {"segmentation": {"size": [3, 3], "counts": [9]}}
    with pytest.raises(ValueError, match="3 x 3, the frame 64 x 64"):
        frame(DOGS, [wrong])


# ---------------------------------------------------------------- against pycocotools itself


def direct_scores(case, level, kind):
    """AP, AP50 and AP75 of COCO's own json files, by its own loader and summary."""
    space = case.space
    names = {"actor": space.actors, "action": space.actions, "joint": space.pair_names}[level]
    number = {name: i for i, name in enumerate(names, start=1)}

    def segmentation(box):
        x, y, width, height = box
        mask = np.zeros((48, 64), dtype=bool)
        mask[y : y + height, x : x + width] = True
        return encode_mask(mask)

    images, annotations, results = [], [], []
    for image, key in enumerate(sorted(case.truth)):
        images.append({"id": image, "height": 48, "width": 64})
        for box, actor, action in case.truth[key]:
            name = {
                "actor": space.actors[actor],
                "action": space.actions[action],
                "joint": space.pair_name(actor, action),
            }[level]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": number[name],
                    "bbox": box,
                    "segmentation": segmentation(box),
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
        for one in case.predictions:
            if (one["video_id"], one["frame"]) != key:
                continue
            scores = {one["actor"]: one["score"]}
            if level != "actor":
                scores = {
                    f"{one['actor']}-{action}" if level == "joint" else action: one["score"] * p
                    for action, p in zip(space.actions, one["action_scores"], strict=True)
                }
            shape = "bbox" if kind == "bbox" else "segmentation"
            results += [
                {
                    "image_id": image,
                    "category_id": number[name],
                    "score": value,
                    shape: one[shape],
                }
                for name, value in scores.items()
                if name in number
            ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": images,
            "annotations": annotations,
            "categories": [{"id": i, "name": name} for name, i in number.items()],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [100 * value for value in evaluation.stats[:3]]


@pytest.mark.parametrize("level", LEVELS)
def test_files_equal_direct_use_of_pycocotools(case, level, capsys):
    scores = evaluate_files(
        case.root, "test", case.space, predictions=case.file, protocol="coco", progress=False
    )
    assert capsys.readouterr().out == ""
    for shape, kind in (("boxes", "bbox"), ("masks", "segm")):
        expected = direct_scores(case, level, kind)
        assert min(expected) > 1
        assert list(scores[shape][level].values()) == pytest.approx(expected, abs=1e-9)
