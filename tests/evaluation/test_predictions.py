import json
import re

import numpy as np
import pycocotools.mask
import pytest
import torch
from detectron2.structures import Boxes, Instances

from a2d_d2.evaluation.predictions import (
    compress_mask,
    decode_mask,
    encode_mask,
    instances_to_json,
    read_predictions,
    write_predictions,
    written_boxes_and_scores,
)
from a2d_d2.evaluation.score_files import evaluate_files
from a2d_d2.label_space import LabelSpace
from a2d_d2.segmenters.files import segment_predictions

A2D = LabelSpace.a2d()
MASK = np.array([[0, 1, 1], [1, 1, 0]], dtype=bool)


def entry(**changes):
    return {
        "video_id": "-a",
        "frame": 3,
        "actor": "dog",
        "score": 0.5,
        "action_scores": [0.125] * 8 + [0],
        "bbox": [1, 2, 3, 4],
        "segmentation": encode_mask(MASK),
    } | changes


def read(path, *entries):
    path.write_text(json.dumps(entries))
    return read_predictions(path, A2D)


# ---------------------------------------------------------------- masks


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 1])
def test_masks_decode_as_pycocotools_does(share):
    rng = np.random.default_rng(0)
    for size in ((1, 1), (7, 5), (40, 61), (300, 500)):
        mask = rng.random(size) < share
        encoded = encode_mask(mask)
        assert encoded["size"] == list(size)
        assert (decode_mask(encoded) == mask).all()
        assert (pycocotools.mask.decode(encoded) == mask).all()


@pytest.mark.parametrize(
    ("runs", "counts"),
    [
        ([1, 4, 1], "141"),
        ([1, 4, 1], [1, 4, 1]),
        ([1, 4, 1], b"1T01"),  # a run in more groups of bits than it needs
        ([1, 4, 1], [1, 2, 0, 2, 1, 0]),  # runs of no pixels
        ([0, 6], [0, 6]),
        ([6], [6]),
        ([6], [6, 0]),
    ],
)
def test_every_spelling_of_a_mask_becomes_one(runs, counts):
    mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(3, 2).T
    assert compress_mask({"size": [2, 3], "counts": counts}) == encode_mask(mask)


def test_compressing_checks_the_mask():
    with pytest.raises(ValueError, match="do not add up"):
        compress_mask({"size": [2, 3], "counts": [7]})


def test_masks_of_large_shapes_decode():
    mask = np.zeros((320, 568), dtype=bool)
    mask[30:200, 100:400] = True
    mask[90:100, 350:500] ^= True
    assert (decode_mask(encode_mask(mask)) == mask).all()


def test_uncompressed_masks_decode():
    assert (decode_mask({"size": [2, 3], "counts": [1, 4, 1]}) == MASK).all()


@pytest.mark.parametrize(
    "segmentation",
    [
        "abc",
        [[1, 2, 3, 4, 5, 6]],
        {"size": [2, 3]},
        {"counts": [6]},
        {"size": [2], "counts": [2]},
        {"size": [2, -3], "counts": [6]},
        {"size": [2, 3.0], "counts": [6]},
        {"size": [2, 3], "counts": [5]},
        {"size": [2, 3], "counts": [7]},
        {"size": [2, 3], "counts": [7, -1]},
        {"size": [2, 3], "counts": [1.5, 4.5]},
        {"size": [2, 3], "counts": None},
        {"size": [2, 3], "counts": ""},
        {"size": [2, 3], "counts": "not one"},
        {"size": [2, 3], "counts": "\u00e9"},
        {"size": [2, 3], "counts": "\ud800"},
        {"size": [2, 3], "counts": "1P"},  # ends within a number
        {"size": [2, 3], "counts": "ooooooooooooooooo0"},
        {"size": [2, 3], "counts": "05Oo"},
    ],
)
def test_malformed_masks_are_refused(segmentation, tmp_path):
    path = tmp_path / "p.json"
    with pytest.raises(ValueError, match="entry 2, video -a, frame 3: .*(segmentation|codec)"):
        read(path, entry(), entry(segmentation=segmentation))


# ---------------------------------------------------------------- reading


def test_entries_become_arrays(tmp_path):
    frames = read(
        tmp_path / "p.json",
        entry(video_id="b", score=1, actor="adult"),
        entry(video_id="-a", frame=9),
        entry(video_id="b", score=0, segmentation=None, more="ignored"),
        entry(video_id="-a", frame=2),
    )
    assert list(frames) == [("-a", 1), ("-a", 8), ("b", 2)]
    found = frames["b", 2]
    assert found.scores.tolist() == [1, 0]
    assert found.actors.tolist() == [0, 6]
    assert found.boxes.tolist() == [[1, 2, 4, 6]] * 2
    assert found.action_scores.shape == (2, 9)
    assert (decode_mask(found.segmentations[0]) == MASK).all()
    assert found.segmentations[1] is None


def test_action_scores_by_name_in_any_order(tmp_path):
    scores = dict(zip(A2D.actions, np.arange(9) / 10, strict=True))
    shuffled = dict(sorted(scores.items(), key=lambda item: item[0][::-1]))
    frames = read(
        tmp_path / "p.json",
        entry(action_scores=list(scores.values())),
        entry(action_scores=shuffled),
        entry(action_scores={"running": 0.5}),
    )
    values = frames["-a", 2].action_scores
    assert (values[0] == values[1]).all()
    assert values[2].tolist() == [0, 0, 0, 0, 0, 0, 0.5, 0, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actor": "horse"}, "no actor 'horse'"),
        ({"actor": None}, "no actor None"),
        ({"score": "0.5"}, "score must be a finite number"),
        ({"score": True}, "score must be a finite number"),
        ({"score": float("nan")}, "score must be a finite number"),
        ({"score": float("inf")}, "score must be a finite number"),
        ({"score": 10**400}, "score must be a finite number"),
        ({"score": -0.1}, "score must be a finite number, not negative"),
        ({"action_scores": [0.1] * 8}, "a list of 9 numbers"),
        ({"action_scores": 0.1}, "a list of 9 numbers"),
        ({"action_scores": [0.1] * 8 + [None]}, "action score 9"),
        ({"action_scores": {"swimming": 1}}, "no action 'swimming'"),
        ({"bbox": [1, 2, 3]}, "bbox must be four"),
        ({"bbox": [1, 2, 3, None]}, "bbox must be four"),
        ({"bbox": [1, 2, 3, float("nan")]}, "bbox must be four"),
        ({"bbox": [1, 2, -3, 4]}, "negative width"),
    ],
)
def test_wrong_values_are_refused(changes, message, tmp_path):
    path = tmp_path / "p.json"
    where = re.escape(f"{path}: entry 2, video -a, frame 3: ")
    with pytest.raises(ValueError, match=where + ".*" + re.escape(message)):
        read(path, entry(), entry(**changes))


@pytest.mark.parametrize("key", ["actor", "score", "action_scores", "bbox", "video_id", "frame"])
def test_missing_keys_are_refused(key, tmp_path):
    wrong = entry()
    del wrong[key]
    with pytest.raises(ValueError, match=f"entry 1.*no {key}"):
        read(tmp_path / "p.json", wrong)


@pytest.mark.parametrize("frame", [0, -1, 1.5, "3", True, None])
def test_wrong_frames_are_refused(frame, tmp_path):
    with pytest.raises(ValueError, match="entry 1: video -a: frame must be an integer from 1"):
        read(tmp_path / "p.json", entry(frame=frame))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[{", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"{}", "expected a list"),
        (b"[3]", "entry 1: expected an object"),
    ],
)
def test_broken_files_are_refused(content, message, tmp_path):
    path = tmp_path / "p.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}.*{message}"):
        read_predictions(path, A2D)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read predictions .*nothing.json: No such file"):
        read_predictions(tmp_path / "nothing.json", A2D)


# ---------------------------------------------------------------- writing


def make_instances(dtype=torch.float32):
    rng = torch.Generator().manual_seed(0)
    instances = Instances((2, 3))
    corners = torch.rand(3, 2, generator=rng)
    instances.pred_boxes = Boxes(torch.cat([corners, corners + 1.3], dim=1))
    instances.scores = torch.rand(3, generator=rng).to(dtype)
    instances.pred_classes = torch.tensor([6, 0, 1])
    instances.action_scores = torch.rand(3, 9, generator=rng).to(dtype)
    instances.pred_masks = torch.as_tensor(np.stack([MASK, ~MASK, MASK & False]))
    return instances


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_instances_survive_the_file(dtype, tmp_path):
    instances = make_instances(dtype)
    path = tmp_path / "folder" / "p.json"
    write_predictions(path, instances_to_json(instances, "-a", 4, A2D))
    (key,), (found,) = zip(*read_predictions(path, A2D).items(), strict=True)
    assert key == ("-a", 4)
    assert (found.scores.astype(np.float32) == instances.scores.float().numpy()).all()
    action_scores = found.action_scores.astype(np.float32)
    assert (action_scores == instances.action_scores.float().numpy()).all()
    assert found.actors.tolist() == [6, 0, 1]
    assert found.boxes == pytest.approx(instances.pred_boxes.tensor.numpy(), abs=1e-6)
    masks = [decode_mask(segmentation) for segmentation in found.segmentations[:2]]
    assert (np.stack(masks) == instances.pred_masks[:2].numpy()).all()
    assert found.segmentations[2] is None  # its mask is empty


def test_written_boxes_and_scores_are_known_beforehand(tmp_path):
    """To the last bit, of which float32 corners and float64 sums differ."""
    rng = torch.Generator().manual_seed(1)
    instances = Instances((320, 568))
    corners = 300 * torch.rand(200, 2, generator=rng)
    instances.pred_boxes = Boxes(
        torch.cat([corners, corners + 90 * torch.rand(200, 2, generator=rng)], dim=1)
    )
    instances.scores = torch.rand(200, generator=rng)
    instances.pred_classes = torch.zeros(200, dtype=torch.int64)
    instances.action_scores = torch.rand(200, 9, generator=rng)
    write_predictions(tmp_path / "p.json", instances_to_json(instances, "v", 0, A2D))
    found = read_predictions(tmp_path / "p.json", A2D)["v", 0]
    boxes, scores = written_boxes_and_scores(instances)
    assert (boxes == found.boxes).all() and (scores == found.scores).all()
    assert (boxes != instances.pred_boxes.tensor.double().numpy()).any()
    boxes, scores = written_boxes_and_scores(instances[:0])
    assert boxes.shape == (0, 4) and scores.shape == (0,)


def test_numbers_are_short():
    instances = make_instances()
    instances.scores = torch.tensor([0.7, 0.1, 1.0])
    assert [e["score"] for e in instances_to_json(instances, "v", 0, A2D)] == [0.7, 0.1, 1.0]


def test_instances_without_masks_and_no_instances(tmp_path):
    instances = make_instances()
    assert instances_to_json(instances[:0], "v", 0, A2D) == []
    instances.remove("pred_masks")
    assert [e["segmentation"] for e in instances_to_json(instances, "v", 0, A2D)] == [None] * 3
    write_predictions(tmp_path / "p.json", [])
    assert read_predictions(tmp_path / "p.json", A2D) == {}


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [10**9, 10**9], "counts": [10**18]},
        {"size": [2**29, 2**29], "counts": "PPPPPPP0"},
        {"size": [2**14, 2**13], "counts": [2**27]},
        {"size": [2, 3], "counts": [2**63, -(2**63), 6]},
        {"size": [2, 3], "counts": "o" * 40},
        {"size": [2, 3], "counts": "\ud800"},
    ],
)
def test_masks_that_claim_what_cannot_be(segmentation):
    """Without taking the memory that they ask for."""
    with pytest.raises(ValueError):
        decode_mask(segmentation)
    with pytest.raises(ValueError):
        compress_mask(segmentation)


@pytest.mark.parametrize("video_id", ["../../etc/passwd", "/etc/passwd", "..", "a/../b"])
def test_a_video_id_is_only_compared_with_the_release(tmp_path, video_id, tiny_release):
    path = tmp_path / "predictions.json"
    entry = {"video_id": video_id, "frame": 1}
    path.write_text(json.dumps([entry]))
    with pytest.raises(ValueError, match="unknown video"):
        evaluate_files(tiny_release, "test", LabelSpace.a2d(), predictions=path, progress=False)
    with pytest.raises(ValueError, match="unknown video"):
        segment_predictions(
            *(tiny_release, "test", path, tmp_path / "out.json", LabelSpace.a2d()), progress=False
        )
    assert sorted(tmp_path.iterdir()) == [path]
