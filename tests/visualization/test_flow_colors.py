"""The colour wheel of flow."""

import colorsys

import numpy as np
import pytest

from a2d_d2.visualization.flow import flow_range, flow_to_picture, flow_wheel, put_flow_wheel


def hue_of(x, y, limit=1.0):
    color = flow_to_picture(np.array([[[x, y]]], np.float32), limit)[0, 0] / 255
    hue, saturation, value = colorsys.rgb_to_hsv(*color)
    return hue * 360, saturation, value


@pytest.mark.parametrize(
    ("vector", "hue"), [((1, 0), 0), ((0, 1), 90), ((-1, 0), 180), ((0, -1), 270)]
)
def test_hue_is_the_direction(vector, hue):
    measured, saturation, value = hue_of(*vector)
    assert abs((measured - hue + 180) % 360 - 180) < 1
    assert (saturation, value) == (1, 1)


def test_opposite_directions_have_opposite_hues():
    for angle in np.linspace(0, np.pi, 7):
        x, y = np.cos(angle), np.sin(angle)
        assert abs((hue_of(x, y)[0] - hue_of(-x, -y)[0]) % 360 - 180) < 1.5


def test_saturation_is_the_speed_up_to_the_limit():
    assert hue_of(2, 0, limit=4)[1] == pytest.approx(0.5, abs=0.01)
    assert hue_of(9, 0, limit=4)[1] == 1
    assert (flow_to_picture(np.zeros((3, 4, 2))) == 255).all()  # no motion is white


def test_range_ignores_outliers_and_still_scenes():
    flow = np.zeros((100, 100, 3), np.float32)
    assert flow_range(flow) == 1
    flow[..., 0] = 5
    flow[0, 0, 0] = 1000
    flow[..., 2] = 99  # the magnitude channel is no direction
    assert flow_range(flow) == pytest.approx(5)


def test_wheel_agrees_with_the_colours():
    wheel = flow_wheel(101)
    assert wheel[50, 50, :3].min() > 250  # still in the centre
    assert wheel[50, 99, 0] > 250 > 20 > wheel[50, 99, 1]  # right: red
    assert wheel[0, 0, 3] == 0  # transparent outside
    picture = np.full((40, 60, 3), 9, np.uint8)
    put_flow_wheel(picture, 20)
    assert (picture[:20] == 9).all()
    assert (picture[:, :40] == 9).all()
    assert picture[30, 50].min() > 200
