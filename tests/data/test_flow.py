import threading

import cv2
import numpy as np
import pytest

from a2d_d2.data import flow as flow_module
from a2d_d2.data.flow import (
    FLOW_METHODS,
    compute_flow,
    decode_flow,
    encode_flow,
    flow_to_input,
    read_flow,
    resize_flow,
    write_flow,
)


def texture(height=64, width=96, seed=0):
    """A smooth random BGR picture, 16 pixels larger than the frame on each side."""
    noise = np.random.default_rng(seed).normal(size=(height + 32, width + 32, 3))
    smooth = cv2.GaussianBlur(noise.astype(np.float32), (0, 0), 2)
    return np.clip(128 + 300 * smooth, 0, 255).astype(np.uint8)


def frame_of(picture, x=0, y=0, height=64, width=96):
    return picture[16 - y : 16 - y + height, 16 - x : 16 - x + width]


@pytest.mark.parametrize("method", ["dis", "farneback"])
def test_flow_is_where_things_move_to(method):
    picture = texture()
    flow = compute_flow(frame_of(picture), frame_of(picture, x=3, y=-2), method)
    assert flow.shape == (64, 96, 2) and flow.dtype == np.float32
    inner = flow[10:-10, 10:-10].reshape(-1, 2)
    np.testing.assert_allclose(np.median(inner, axis=0), [3, -2], atol=0.1)


def test_flow_lies_on_the_grid_of_the_previous_frame():
    still = texture(seed=1)
    patch = texture(seed=2)[:40, :24]
    frames = [frame_of(still).copy() for _ in range(2)]
    frames[0][12:52, 20:44] = patch
    frames[1][12:52, 26:50] = patch  # 6 pixels to the right
    flow = compute_flow(*frames)
    assert np.median(flow[16:48, 21:25, 0]) == pytest.approx(6, abs=1)  # where it was
    assert np.median(flow[16:48, 52:56, 0]) == pytest.approx(0, abs=1)


@pytest.mark.parametrize("method", ["dis", "farneback"])
@pytest.mark.parametrize("size", [(1, 1), (1, 64), (8, 128), (12, 567), (33, 5)])
def test_tiny_frames(method, size):
    frame = texture(*size)[: size[0], : size[1]]
    flow = compute_flow(frame, frame, method)
    assert flow.shape == (*size, 2)
    np.testing.assert_allclose(flow, 0, atol=0.5)


def test_result_does_not_depend_on_what_was_computed_before_or_on_the_thread():
    picture, other = texture(), texture(seed=5)
    frames = frame_of(picture), frame_of(picture, x=1)
    first = compute_flow(*frames)
    compute_flow(frame_of(other), frame_of(other, y=4))
    compute_flow(other[:20, :20], other[1:21, :20])
    results = [compute_flow(*frames)]
    thread = threading.Thread(target=lambda: results.append(compute_flow(*frames)))
    thread.start()
    thread.join()
    for result in results:
        np.testing.assert_array_equal(result, first)


def test_bad_frames():
    frame = frame_of(texture())
    with pytest.raises(ValueError, match="one size"):
        compute_flow(frame, frame[:-1])
    with pytest.raises(ValueError, match="BGR uint8"):
        compute_flow(frame, frame.astype(np.float32))
    with pytest.raises(ValueError, match="BGR uint8"):
        compute_flow(frame[..., 0], frame[..., 0])
    with pytest.raises(ValueError, match="BGR uint8"):
        compute_flow(frame[:0], frame[:0])


def test_unknown_method_names_the_choices():
    frame = frame_of(texture())
    with pytest.raises(ValueError, match="farneback"):
        compute_flow(frame, frame, "raft")


def test_tvl1_needs_contrib(monkeypatch):
    monkeypatch.delattr(flow_module.cv2, "optflow", raising=False)
    frame = frame_of(texture())
    with pytest.raises(ValueError, match="opencv-contrib-python"):
        compute_flow(frame, frame, "tvl1")
    assert "tvl1" in FLOW_METHODS


def test_file_keeps_flow_to_half_a_64th(tmp_path):
    flow = np.random.default_rng(0).normal(0, 30, (9, 7, 2)).astype(np.float32)
    write_flow(tmp_path / "folder" / "flow.png", flow)
    stored = read_flow(tmp_path / "folder" / "flow.png")
    assert stored.shape == flow.shape and stored.dtype == np.float32
    assert np.abs(stored - flow).max() <= 0.5 / 64
    write_flow(tmp_path / "again.png", stored)
    np.testing.assert_array_equal(read_flow(tmp_path / "again.png"), stored)


def test_file_saturates_at_512_pixels(tmp_path):
    write_flow(tmp_path / "flow.png", np.float32([[[1e6, -1e6], [511, -512]]]))
    np.testing.assert_array_equal(
        read_flow(tmp_path / "flow.png"), [[[512 - 1 / 64, -512], [511, -512]]]
    )


def test_stored_values_are_as_rounding_says(tmp_path):
    """Halves go to the even neighbour, and every value of 16 bits comes back."""
    values = np.float32([0.5, 1.5, -0.5, -1.5, 0.51, -0.49, 3e9, -3e9, 2**37, -(2**37)]) / 64
    values = values.reshape(1, 5, 2)
    write_flow(tmp_path / "flow.png", values)
    expected = np.float32([0, 2, 0, -2, 1, 0, 2**15 - 1, -(2**15), 2**15 - 1, -(2**15)]) / 64
    np.testing.assert_array_equal(read_flow(tmp_path / "flow.png").ravel(), expected)
    np.testing.assert_array_equal(decode_flow(encode_flow(values)).ravel(), expected)
    every = np.arange(-(2**15), 2**15, dtype=np.float32).reshape(256, 128, 2) / 64
    for flow in (every, np.asfortranarray(every), every[::-1, ::-1], every[:, :1]):
        stored = decode_flow(encode_flow(flow))
        assert stored.flags.c_contiguous
        np.testing.assert_array_equal(stored, flow)


def test_the_cache_holds_four_planes_of_bytes(tmp_path):
    (tmp_path / "flow.png").write_bytes(encode_flow(np.float32([[[1.5, -2.25], [0, 4]]])))
    planes = cv2.imread(str(tmp_path / "flow.png"), cv2.IMREAD_UNCHANGED)
    # 96, -144, 0 and 256 in two's complement
    assert planes.tolist() == [[0x60, 0, 0, 0, 0x70, 0, 0xFF, 0x01]]


def test_a_file_has_the_layout_of_kitti(tmp_path):
    flow = np.random.default_rng(1).integers(-(2**15), 2**15, (6, 9, 2)) / np.float32(64)
    pixels = np.ones((6, 9, 3), dtype=np.uint16)
    pixels[..., 2], pixels[..., 1] = 64 * flow[..., 0] + 32768, 64 * flow[..., 1] + 32768
    write_flow(tmp_path / "flow.png", flow)
    written = cv2.imread(str(tmp_path / "flow.png"), cv2.IMREAD_UNCHANGED)
    assert written.dtype == np.uint16
    np.testing.assert_array_equal(written, pixels)
    np.testing.assert_array_equal(read_flow(tmp_path / "flow.png"), flow)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_flow_that_is_not_finite_is_not_written(tmp_path, value):
    flow = np.zeros((4, 4, 2), dtype=np.float32)
    flow[1, 2, 0] = value
    with pytest.raises(ValueError, match="finite"):
        write_flow(tmp_path / "flow.png", flow)
    assert list(tmp_path.iterdir()) == []


def test_broken_file_is_named(tmp_path):
    path = tmp_path / "flow.png"
    with pytest.raises(ValueError, match="flow.png"):
        read_flow(path)
    write_flow(path, np.zeros((32, 32, 2), dtype=np.float32))
    for content in (b"", b"garbage"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="flow.png"):
            read_flow(path)
    for shape in ((4, 4, 3), (4, 4, 4), (4, 6)):  # pictures, not flow
        cv2.imwrite(str(path), np.zeros(shape, dtype=np.uint8))
        with pytest.raises(ValueError, match="flow.png"):
            read_flow(path)


def test_resize_scales_the_vectors():
    flow = np.full((10, 20, 2), [4, -6], dtype=np.float32)
    resized = resize_flow(flow, (30, 5))  # half as high, one and a half times as wide
    assert resized.shape == (5, 30, 2)
    np.testing.assert_allclose(resized, np.broadcast_to(np.float32([6, -3]), (5, 30, 2)))
    np.testing.assert_array_equal(flow[0, 0], [4, -6])
    assert resize_flow(flow, (20, 10)) is flow


def test_resized_flow_is_as_a_product_says():
    flow = np.random.default_rng(2).normal(0, 9, (31, 45, 2)).astype(np.float32)
    expected = cv2.resize(flow, (29, 17), interpolation=cv2.INTER_AREA)
    expected = expected * np.float32([29 / 45, 17 / 31])
    np.testing.assert_array_equal(resize_flow(flow, (29, 17)), expected)


def test_input_is_x_y_and_magnitude():
    flow = np.float32([[[3, -4], [0, 0]]])
    expected = [[[3, 0]], [[-4, 0]], [[5, 0]]]
    np.testing.assert_array_equal(flow_to_input(flow), expected)
    out = np.full((3, 1, 2), np.nan, dtype=np.float32)
    assert flow_to_input(flow, out) is out
    np.testing.assert_array_equal(out, expected)


def test_magnitude_is_rounded_once_a_step():
    flow = np.random.default_rng(3).normal(0, 9, (31, 45, 2)).astype(np.float32)
    expected = np.dstack([flow, np.sqrt(flow[..., 0] ** 2 + flow[..., 1] ** 2)])
    np.testing.assert_array_equal(flow_to_input(flow), expected.transpose(2, 0, 1))


def test_damaged_flow_is_never_used(tmp_path):
    """OpenCV itself decodes some of these."""
    flow = np.random.default_rng(0).normal(size=(12, 9, 2)).astype(np.float32)
    path, data = tmp_path / "flow.png", encode_flow(flow)
    for place in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"cannot read flow .*flow\.png"):
            read_flow(path)
    path.write_bytes(data[:-4])
    with pytest.raises(ValueError, match=r"flow\.png"):
        read_flow(path)
