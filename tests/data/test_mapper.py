import copy
import logging
import shutil

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import transforms as T
from detectron2.structures import BitMasks
from detectron2.utils import logger as detectron2_logger
from pycocotools import mask as mask_util

from a2d_d2.config import add_a2d_config
from a2d_d2.data import clip_cache, mapper
from a2d_d2.data.build import with_window_annotations
from a2d_d2.data.clip_cache import prepare_clips
from a2d_d2.data.flow import compute_flow
from a2d_d2.data.mapper import (
    ClipDatasetMapper,
    FrameDatasetMapper,
    build_mapper,
    frames_to_tensor,
)
from a2d_d2.data.release import load_release
from a2d_d2.data.video import VideoError, read_frames
from a2d_d2.label_space import LabelSpace

AS_IT_IS = [
    *("INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.MIN_SIZE_TEST", 64),
    *("INPUT.RANDOM_FLIP", "none", "MODEL.MASK_ON", True),
]


@pytest.fixture(scope="module")
def records(tiny_release):
    """Records of 12-frame videos."""
    return load_release(tiny_release, "train", LabelSpace.a2d(), progress=False)


@pytest.fixture(scope="module")
def record(records):
    """A frame inside its video, with another annotated frame two frames away."""
    return next(
        r
        for r in records
        if 2 < r["frame_index"] < 9
        and any(abs(f - r["frame_index"]) == 2 for f in r["annotated_frames"])
    )


def make_mapper(*options, is_train=True):
    cfg = get_cfg()
    add_a2d_config(cfg)
    cfg.merge_from_list([*AS_IT_IS, *options])
    return ClipDatasetMapper(cfg, is_train=is_train)


STOCK = ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN"]
PAIRS = ["MODEL.CLASSES", "pairs", "MODEL.ROI_HEADS.NUM_CLASSES", 43]


def make_frame_mapper(*options, is_train=True):
    cfg = get_cfg()
    add_a2d_config(cfg)
    cfg.merge_from_list([*AS_IT_IS, *STOCK, *options])
    made = build_mapper(cfg, is_train)
    assert isinstance(made, FrameDatasetMapper)
    return made


def pixels(tensor):
    return tensor.permute(0, 2, 3, 1).numpy()


def decode_mask(annotation):
    return mask_util.decode(annotation["segmentation"]).astype(bool)


@pytest.fixture
def decoded(monkeypatch):
    """The sets of frames that are decoded while the test runs."""
    calls = []

    def spy(path, indices):
        calls.append(set(indices))
        return select_frames(path, indices)

    select_frames = clip_cache.select_frames
    monkeypatch.setattr(clip_cache, "select_frames", spy)
    return calls


# ---------------------------------------------------------------- contents


def test_training_clip(record):
    key = record["frame_index"]
    before = copy.deepcopy(record)
    clip = make_mapper()(record)
    assert record == before
    assert clip["frame_indices"] == [key - 1, key, key + 1]
    assert clip["key_positions"] == [1]
    assert clip["neighbours"].tolist() == [[0, 1, 2]] and clip["neighbours"].dtype == torch.int64
    for name in ("video_id", "frame_index", "image_id", "height", "width", "label_map_file"):
        assert clip[name] == record[name]

    frames = read_frames(record["file_name"], range(key - 2, key + 2))
    assert clip["image"].dtype == torch.uint8 and clip["image"].shape == (3, 3, 64, 80)
    np.testing.assert_array_equal(pixels(clip["image"]), [frames[i] for i in clip["frame_indices"]])
    assert clip["flow"].dtype == torch.float32 and clip["flow"].is_contiguous()
    for index, flow in zip(clip["frame_indices"], pixels(clip["flow"]), strict=True):
        expected = compute_flow(frames[index - 1], frames[index])
        np.testing.assert_array_equal(flow[..., :2], expected)
        np.testing.assert_allclose(flow[..., 2], np.hypot(*expected.transpose(2, 0, 1)), atol=1e-5)

    (truth,) = clip["instances"]
    assert truth.image_size == (64, 80)
    assert truth.gt_classes.tolist() == [x["category_id"] for x in record["annotations"]]
    assert truth.gt_actions.tolist() == [x["action_id"] for x in record["annotations"]]
    np.testing.assert_allclose(
        truth.gt_boxes.tensor.numpy(), [x["bbox"] for x in record["annotations"]]
    )
    np.testing.assert_array_equal(
        truth.gt_masks.tensor.numpy(), [decode_mask(x) for x in record["annotations"]]
    )


def test_frames_become_planes_however_they_lie_in_memory():
    image = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    for one in (image, image[:, ::-1], image[::-1], image[1:5, 2:7], image[1:5, 7:2:-1]):
        tensor = frames_to_tensor([one, one + 1])
        assert tensor.is_contiguous() and tensor.dtype == torch.uint8
        np.testing.assert_array_equal(pixels(tensor), [one, one + 1])


def test_first_frame_has_zero_flow(record):
    clip = make_mapper()(record | {"frame_index": 0})
    assert clip["frame_indices"] == [0, 1]
    assert clip["neighbours"].tolist() == [[-1, 0, 1]]
    assert clip["flow"][0].abs().max() == 0 < clip["flow"][1].abs().max()


def test_window_that_the_video_does_not_fill(record):
    record = record | {"frame_index": 11}
    clip = make_mapper("INPUT.CLIP.LENGTH", 9, "MODEL.TEMPORAL.NUM_LAYERS", 4)(record)
    assert clip["frame_indices"] == [7, 8, 9, 10, 11]
    assert clip["neighbours"].tolist() == [[0, 1, 2, 3, 4, -1, -1, -1, -1]]


def test_testing_clip_has_one_key_and_no_annotations(records, record):
    record = with_window_annotations(records, 5, 1)[records.index(record)]
    clip = make_mapper(is_train=False)(record)
    assert clip["key_positions"] == [1] and len(clip["frame_indices"]) == 3
    assert "instances" not in clip and "annotations" not in clip


@pytest.mark.parametrize("cached", [False, True])
def test_a_segmenter_gets_the_frame_as_it_was_read(tiny_release, record, decoded, tmp_path, cached):
    options = ["MODEL.MASK_ON", False, "MODEL.SEGMENTER.NAME", "GrabCutSegmenter"]
    options += ["INPUT.MIN_SIZE_TEST", 128]
    if cached:
        prepare_clips(tiny_release, tmp_path, length=3, lossless=True, workers=1, progress=False)
        options += ["INPUT.CLIP.CACHE", str(tmp_path)]
    index = record["frame_index"]
    frame = read_frames(record["file_name"], [index])[index]
    decoded.clear()
    clip = make_mapper(*options, is_train=False)(record)
    assert len(decoded) == (0 if cached else 1)
    assert clip["image"].shape[-2:] == (128, 160)
    assert clip["frame"].dtype == np.uint8
    np.testing.assert_array_equal(clip["frame"], frame)
    of_detector = make_frame_mapper(*options, is_train=False)(record)
    np.testing.assert_array_equal(of_detector["frame"], frame)
    assert "frame" not in make_mapper(*options, is_train=True)(record)
    assert "frame" not in make_mapper(is_train=False)(record)


def test_all_annotated_frames_of_the_window_are_keys(records, record):
    full = with_window_annotations(records, 5, 1)[records.index(record)]
    clip = make_mapper()(full)
    keys = [clip["frame_indices"][k] for k in clip["key_positions"]]
    key = record["frame_index"]
    assert keys == [f for f in record["annotated_frames"] if abs(f - key) <= 2]
    assert len(keys) > 1 and len(clip["instances"]) == len(clip["neighbours"]) == len(keys)
    by_frame = {
        r["frame_index"]: r["annotations"] for r in records if r["video_id"] == record["video_id"]
    }
    for frame, truth in zip(keys, clip["instances"], strict=True):
        assert truth.gt_actions.tolist() == [x["action_id"] for x in by_frame[frame]]
        np.testing.assert_array_equal(
            truth.gt_masks.tensor.numpy(), [decode_mask(x) for x in by_frame[frame]]
        )


def test_frame_without_instances(record):
    clip = make_mapper()(record | {"annotations": []})
    (truth,) = clip["instances"]
    assert len(truth) == 0
    assert truth.gt_actions.dtype == truth.gt_classes.dtype == torch.int64
    assert truth.gt_boxes.tensor.shape == (0, 4) and truth.gt_masks.tensor.shape == (0, 64, 80)


def test_without_masks(record):
    (truth,) = make_mapper("MODEL.MASK_ON", False)(record)["instances"]
    assert not truth.has("gt_masks") and len(truth) == len(record["annotations"])


# ---------------------------------------------------------------- single frames


def test_single_frame_of_pairs(records, record, decoded):
    full = with_window_annotations(records, 5, 1)[records.index(record)]
    assert full["window_annotations"]  # would be key frames of a clip
    before = copy.deepcopy(full)
    frame = make_frame_mapper(*PAIRS)(full)
    assert full == before
    assert decoded == [{record["frame_index"]}]
    clip = make_mapper()(record)
    assert set(frame) == set(clip) - {"flow", "frame_indices", "key_positions", "neighbours"}
    assert frame["image"].dtype == torch.uint8
    assert torch.equal(frame["image"], clip["image"][1])
    truth, expected = frame["instances"], clip["instances"][0]
    pairs = LabelSpace.a2d().valid_pairs
    assert truth.gt_classes.tolist() == [
        pairs.index((x["category_id"], x["action_id"])) for x in record["annotations"]
    ]
    assert set(truth.get_fields()) == {"gt_boxes", "gt_classes", "gt_masks"}
    assert torch.equal(truth.gt_boxes.tensor, expected.gt_boxes.tensor)
    assert torch.equal(truth.gt_masks.tensor, expected.gt_masks.tensor)


def test_single_frame_of_actors(record):
    truth = make_frame_mapper("MODEL.MASK_ON", False)(record)["instances"]
    assert truth.gt_classes.tolist() == [x["category_id"] for x in record["annotations"]]
    assert set(truth.get_fields()) == {"gt_boxes", "gt_classes"}


def test_single_frame_without_instances(record):
    truth = make_frame_mapper(*PAIRS)(record | {"annotations": []})["instances"]
    assert len(truth) == 0 and truth.gt_classes.dtype == torch.int64
    assert truth.gt_masks.tensor.shape == (0, 64, 80)


def test_single_frame_for_testing(record):
    frame = make_frame_mapper(*PAIRS, is_train=False)(record)
    assert frame["image"].shape == (3, 64, 80) and "instances" not in frame
    assert (frame["height"], frame["width"]) == (64, 80)


def test_single_frames_from_a_cache_without_flow(tiny_release, record, tmp_path, decoded):
    prepare_clips(tiny_release, tmp_path, length=1, lossless=True, workers=1, progress=False)
    expected = make_frame_mapper()(record)
    for archive in tmp_path.glob("flow-*/*"):
        archive.unlink()
    decoded.clear()
    frame = make_frame_mapper("INPUT.CLIP.CACHE", str(tmp_path))(record)
    assert decoded == [] and torch.equal(frame["image"], expected["image"])


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize(
    ("options", "offsets", "flow_offsets"),
    [
        ([], {-1, 0, 1}, {-2}),
        (["MODEL.TEMPORAL.NUM_LAYERS", 2], {-2, -1, 0, 1, 2}, {-3}),
        (["MODEL.TEMPORAL.ENABLED", False], {0}, {-1}),
        (["MODEL.FLOW.ENABLED", False], {-1, 0, 1}, set()),
        (["MODEL.TRAIN_BRANCH", "actor"], {0}, set()),
        (["INPUT.CLIP.LENGTH", 1], {0}, {-1}),
        (["INPUT.CLIP.STRIDE", 2], {-2, 0, 2}, {-3, -1, 1}),
    ],
    ids=str,
)
def test_decodes_only_what_counts(record, decoded, options, offsets, flow_offsets):
    key = record["frame_index"]
    clip = make_mapper(*options)(record)
    assert clip["frame_indices"] == sorted(key + d for d in offsets)
    assert ("flow" in clip) == bool(flow_offsets)
    assert decoded == [{key + d for d in offsets | flow_offsets if key + d >= 0}]


@pytest.mark.parametrize("lossless", [True, False])
def test_cache_gives_the_same_clip(tiny_release, records, tmp_path, decoded, lossless):
    on_the_fly = [make_mapper()(record) for record in records]
    prepare_clips(tiny_release, tmp_path, length=3, lossless=lossless, workers=1, progress=False)
    decoded.clear()
    cached = make_mapper("INPUT.CLIP.CACHE", str(tmp_path))
    for record, expected in zip(records, on_the_fly, strict=True):
        clip = cached(record)
        assert clip["frame_indices"] == expected["frame_indices"]
        difference = (clip["image"].float() - expected["image"].float()).abs()
        assert difference.max() == 0 if lossless else difference.mean() < 2.5
        torch.testing.assert_close(clip["flow"], expected["flow"], atol=1 / 64, rtol=0)
    assert decoded == []


def test_incomplete_cache_says_so_once_and_is_made_up_for(
    record, tmp_path, package_log, monkeypatch
):
    monkeypatch.setattr(detectron2_logger, "_LOG_COUNTER", detectron2_logger.Counter())
    expected = make_mapper()(record)
    package_log.clear()
    incomplete = make_mapper("INPUT.CLIP.CACHE", str(tmp_path))
    for _ in range(2):
        clip = incomplete(record)
        torch.testing.assert_close(clip["image"], expected["image"], atol=0, rtol=0)
        torch.testing.assert_close(clip["flow"], expected["flow"], atol=1e-5, rtol=0)
    (message,) = [r for r in package_log.records if "prepare_clips" in r.getMessage()]
    assert message.levelno == logging.WARNING and record["video_id"] in message.getMessage()


def test_no_cache_is_said_once(package_log, monkeypatch):
    monkeypatch.setattr(detectron2_logger, "_LOG_COUNTER", detectron2_logger.Counter())
    for is_train in (True, False):
        make_mapper(is_train=is_train)
    (message,) = [r for r in package_log.records if "prepare_clips" in r.getMessage()]
    assert message.levelno == logging.INFO


def test_loader_process_uses_one_opencv_thread(record, monkeypatch):
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        make_mapper()(record)
        assert cv2.getNumThreads() == 2
        monkeypatch.setattr(mapper, "get_worker_info", object)
        make_mapper()(record)
        assert cv2.getNumThreads() == 1
    finally:
        cv2.setNumThreads(threads)


# ---------------------------------------------------------------- augmentation


def test_one_draw_for_frames_flow_boxes_and_masks(records, record):
    record = with_window_annotations(records, 5, 1)[records.index(record)]
    plain = make_mapper()(record)
    options = ["INPUT.RANDOM_FLIP", "horizontal", "INPUT.MIN_SIZE_TRAIN", (64, 128)]
    augmented = make_mapper(*options)
    np.random.seed(0)  # noqa: NPY002
    seen = set()
    for _ in range(20):
        clip = augmented(record)
        height, width = clip["image"].shape[-2:]
        image, flow = pixels(plain["image"]), pixels(plain["flow"])
        resized = T.ResizeTransform(64, 80, height, width)
        is_flipped = bool((pixels(clip["image"])[0] != resized.apply_image(image[0])).any())
        seen.add((height, is_flipped))
        transforms = T.TransformList([resized, *([T.HFlipTransform(width)] if is_flipped else [])])
        for i in range(len(image)):
            np.testing.assert_array_equal(
                pixels(clip["image"])[i], transforms.apply_image(image[i])
            )
            np.testing.assert_allclose(
                pixels(clip["flow"])[i, ..., :2],
                transforms.apply_flow(np.ascontiguousarray(flow[i, ..., :2])),
                atol=1e-5,
            )
        assert len(clip["instances"]) == len(plain["instances"]) > 1
        for truth, before in zip(clip["instances"], plain["instances"], strict=True):
            boxes = transforms.apply_box(before.gt_boxes.tensor.numpy())
            np.testing.assert_allclose(truth.gt_boxes.tensor.numpy(), boxes, atol=1e-4)
            tight = truth.gt_masks.get_bounding_boxes().tensor
            assert (tight - truth.gt_boxes.tensor).abs().max() <= 1
    assert seen == {(64, False), (64, True), (128, False), (128, True)}


def test_crop_cuts_boxes_to_masks_and_drops_what_it_cuts_off(record):
    annotation = record["annotations"][0]
    options = ["INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute"]
    cropping = make_mapper(*options, "INPUT.CROP.SIZE", (24, 24), "INPUT.MIN_SIZE_TRAIN", (24,))
    np.random.seed(0)  # noqa: NPY002
    counts = set()
    for _ in range(30):
        (truth,) = cropping(record | {"annotations": [annotation]})["instances"]
        assert truth.image_size == (24, 24)
        counts.add(len(truth))
        tight = BitMasks(truth.gt_masks.tensor).get_bounding_boxes().tensor
        np.testing.assert_array_equal(truth.gt_boxes.tensor.numpy(), tight.numpy())
        assert truth.gt_masks.tensor.flatten(1).any(1).all()
    assert counts == {0, 1}


def test_random_placement_reaches_every_place(record):
    key = record["frame_index"]
    np.random.seed(0)  # noqa: NPY002
    placed = make_mapper("INPUT.CLIP.RANDOM_PLACEMENT", True, "INPUT.CLIP.LENGTH", 3)
    seen = {tuple(f - key for f in placed(record)["frame_indices"]) for _ in range(30)}
    assert seen == {(0, 1), (-1, 0, 1), (-1, 0)}
    fixed = make_mapper("INPUT.CLIP.RANDOM_PLACEMENT", True, "INPUT.CLIP.LENGTH", 3, is_train=False)
    assert {len(fixed(record)["frame_indices"]) for _ in range(10)} == {3}


# ---------------------------------------------------------------- mistakes


def test_annotated_frame_after_the_end(record):
    with pytest.raises(VideoError, match=r"frame 31.*check_dataset"):
        make_mapper()(record | {"frame_index": 30})


def test_missing_and_misfitting_clips_are_named(record, records, tmp_path):
    with pytest.raises(VideoError, match="gone.mp4"):
        make_mapper()(record | {"file_name": str(tmp_path / "gone.mp4")})
    path = tmp_path / "small.mp4"
    shutil.copyfile(record["file_name"], path)
    with pytest.raises(VideoError, match="small.mp4 has frames of 80x64"):
        make_mapper()(record | {"file_name": str(path), "height": 66})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("INPUT.CLIP.LENGTH", 0),
        ("INPUT.CLIP.STRIDE", 0),
        ("INPUT.FLOW_METHOD", "raft"),
        ("INPUT.CLIP.CACHE", "no/such/folder"),
        ("INPUT.FORMAT", "RGB"),
    ],
)
def test_wrong_key_is_named(option, value):
    with pytest.raises(ValueError, match=option):
        make_mapper(option, value)
