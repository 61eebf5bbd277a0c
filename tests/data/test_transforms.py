import cv2
import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import transforms as T

from a2d_d2.config import add_a2d_config
from a2d_d2.data.flow import compute_flow
from a2d_d2.data.transforms import ColorJitter, build_augmentations

HEIGHT, WIDTH = 64, 96
MARGIN = 8  # pixels; things that enter the frame have no flow


@pytest.fixture(scope="module")
def frames():
    """Two frames of a texture that turns and drifts: every pixel moves in its own way."""
    noise = np.random.default_rng(0).normal(size=(HEIGHT, WIDTH, 3)).astype(np.float32)
    first = np.clip(128 + 300 * cv2.GaussianBlur(noise, (0, 0), 2.5), 0, 255).astype(np.uint8)
    move = cv2.getRotationMatrix2D((WIDTH / 3, HEIGHT / 2), angle=3, scale=1)
    move[:, 2] += (1.5, -1)
    return first, cv2.warpAffine(first, move, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)


def end_point_error(flow, expected):
    inner = (slice(MARGIN, -MARGIN),) * 2
    return float(np.linalg.norm(flow - expected, axis=-1)[inner].mean())


@pytest.mark.parametrize(
    "transform",
    [
        T.HFlipTransform(WIDTH),
        T.VFlipTransform(HEIGHT),
        T.ResizeTransform(HEIGHT, WIDTH, 96, 144),
        T.ResizeTransform(HEIGHT, WIDTH, 128, 96),  # other factors for x and y
        T.ResizeTransform(HEIGHT, WIDTH, 48, 72),
        T.CropTransform(10, 6, 70, 52),
        T.NoOpTransform(),
    ],
    ids=lambda t: type(t).__name__,
)
def test_flow_of_the_transform_is_flow_of_transformed_frames(frames, transform):
    expected = compute_flow(*(np.ascontiguousarray(transform.apply_image(f)) for f in frames))
    flow = transform.apply_flow(compute_flow(*frames))
    assert flow.shape == expected.shape and flow.dtype == np.float32
    speed = float(np.linalg.norm(expected, axis=-1).mean())
    assert end_point_error(flow, expected) < 0.1 * speed
    # The measure can fail: flow that is treated like a picture is not good enough.
    if not isinstance(transform, T.CropTransform | T.NoOpTransform):
        size = expected.shape[1::-1]
        picture = transform.apply_image(compute_flow(*frames))
        assert picture.shape[1::-1] == size
        assert end_point_error(picture, expected) > 0.2 * speed


@pytest.mark.parametrize(
    "transform, factors", [(T.HFlipTransform(9), [-1, 1]), (T.VFlipTransform(6), [1, -1])]
)
def test_a_flip_negates_one_component(transform, factors):
    flow = np.random.default_rng(0).normal(0, 9, (6, 9, 2)).astype(np.float32)
    before = flow.copy()
    expected = transform.apply_image(flow) * np.float32(factors)
    np.testing.assert_array_equal(transform.apply_flow(flow), expected)
    np.testing.assert_array_equal(flow, before)


def test_padding_has_no_flow():
    padded = T.PadTransform(1, 2, 3, 4, pad_value=9).apply_flow(np.ones((5, 6, 2), np.float32))
    assert padded.shape == (11, 10, 2)
    assert padded[2:7, 1:7].min() == 1 and padded.sum() == 60


def test_transforms_compose():
    flow = np.zeros((4, 6, 2), dtype=np.float32)
    flow[:, 0] = (2, 1)
    both = T.TransformList([T.HFlipTransform(6), T.CropTransform(4, 0, 2, 4)])
    np.testing.assert_array_equal(both.apply_flow(flow)[:, 1], np.broadcast_to([-2, 1], (4, 2)))


def test_transform_without_a_rule_for_flow_is_refused():
    with pytest.raises(AttributeError, match="apply_flow"):
        T.RotationTransform(4, 6, 10).apply_flow(np.zeros((4, 6, 2), np.float32))


def config(*options):
    cfg = get_cfg()
    add_a2d_config(cfg)
    cfg.merge_from_list(list(options))
    return cfg


def draw(augmentations, frame):
    return T.AugmentationList(augmentations)(T.AugInput(frame))


def test_training_draws_sizes_and_flips(frames):
    cfg = config("INPUT.MIN_SIZE_TRAIN", (32, 64, 80), "INPUT.MAX_SIZE_TRAIN", 200)
    np.random.seed(0)  # noqa: NPY002
    drawn = [draw(build_augmentations(cfg, True), frames[0]) for _ in range(30)]
    sizes = {transforms.apply_image(frames[0]).shape[:2] for transforms in drawn}
    assert sizes == {(32, 48), (64, 96), (80, 120)}
    flips = sum(any(isinstance(t, T.HFlipTransform) for t in tfms) for tfms in drawn)
    assert 5 < flips < 25


def test_testing_only_resizes(frames):
    options = ["INPUT.MIN_SIZE_TEST", 32, "INPUT.CROP.ENABLED", True, "INPUT.COLOR_JITTER", 0.5]
    transforms = draw(build_augmentations(config(*options), False), frames[0])
    assert transforms.apply_image(frames[0]).shape == (32, 48, 3)
    assert [type(t) for t in transforms] == [T.ResizeTransform]


def test_a_resize_to_the_same_size_is_left_out(frames):
    cfg = get_cfg()
    add_a2d_config(cfg)
    cfg.merge_from_list(["INPUT.MIN_SIZE_TRAIN", (HEIGHT,), "INPUT.MIN_SIZE_TEST", HEIGHT])
    for is_train in (True, False):
        resize = build_augmentations(cfg, is_train)[0]
        transform = resize(T.AugInput(frames[0]))
        assert isinstance(transform, T.NoOpTransform)
        resized = resize.resize.get_transform(frames[0])
        assert isinstance(resized, T.ResizeTransform)
        np.testing.assert_array_equal(resized.apply_image(frames[0]), frames[0])


def test_crop_comes_before_the_resize(frames):
    options = ["INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE"]
    options += [(32, 32), "INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.RANDOM_FLIP", "none"]
    transforms = draw(build_augmentations(config(*options), True), frames[0])
    assert transforms.apply_image(frames[0]).shape == (64, 64, 3)
    flow = transforms.apply_flow(np.ones((HEIGHT, WIDTH, 2), np.float32))
    np.testing.assert_allclose(flow, 2 * np.ones((64, 64, 2)), rtol=1e-6)


def test_color_jitter_changes_frames_alone(frames):
    np.random.seed(1)  # noqa: NPY002
    transform = ColorJitter(0.5).get_transform(frames[0])
    changed = [transform.apply_image(frame) for frame in frames]
    assert changed[0].dtype == np.uint8 and np.abs(changed[0].astype(int) - frames[0]).mean() > 3
    mask, flow = np.eye(4, dtype=np.uint8), np.ones((4, 4, 2), np.float32)
    np.testing.assert_array_equal(transform.apply_segmentation(mask), mask)
    np.testing.assert_array_equal(transform.apply_flow(flow), flow)
    np.testing.assert_array_equal(transform.apply_box(np.float64([[1, 2, 3, 4]])), [[1, 2, 3, 4]])


def test_color_jitter_treats_one_color_alike_in_all_frames(frames):
    np.random.seed(1)  # noqa: NPY002
    transform = ColorJitter(0.5).get_transform(frames[0])
    dark, bright = (np.full((8, 8, 3), 255 * i, dtype=np.uint8) for i in range(2))
    for other in (dark, bright):
        other[0, 0] = frame_color = (40, 120, 200)
        single = transform.apply_image(np.full((1, 1, 3), frame_color, dtype=np.uint8))
        np.testing.assert_array_equal(transform.apply_image(other)[0, 0], single[0, 0])


def test_color_jitter_by_hand():
    transform = ColorJitter(0.0).get_transform(np.full((2, 2, 3), 50, dtype=np.uint8))
    frame = np.uint8([[[10, 60, 200]]])
    np.testing.assert_array_equal(transform.apply_image(frame), frame)
    transform = type(transform)(brightness=0.5, contrast=2.0, saturation=0.0, pivot=50.0)
    gray = 0.114 * 10 + 0.587 * 60 + 0.299 * 200  # 96.16
    expected = round(0.5 * (50 + 2 * (gray - 50)))
    np.testing.assert_array_equal(transform.apply_image(frame), [[[expected] * 3]])


@pytest.mark.parametrize("amount", [-0.1, 1.0])
def test_color_jitter_refuses_amounts(amount):
    with pytest.raises(ValueError, match="COLOR_JITTER"):
        build_augmentations(config("INPUT.COLOR_JITTER", amount), True)
