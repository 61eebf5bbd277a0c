"""Pictures of one bright ellipse: on an even ground, and on patches almost as bright."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="session")
def ellipse():
    """``image`` (64, 80, 3), the ``mask`` of its ellipse, and a ``box`` 2 pixels around it."""
    rng = np.random.default_rng(0)
    mask = np.zeros((64, 80), np.uint8)
    cv2.ellipse(mask, (42, 30), (20, 13), 25, 0, 360, 1, -1)
    image = rng.normal(70, 12, (64, 80, 3))
    image[mask > 0] += (30, 90, 120)
    ys, xs = np.nonzero(mask)
    box = np.array([xs.min() - 2, ys.min() - 2, xs.max() + 3, ys.max() + 3], float)
    image = image.clip(0, 255).astype(np.uint8)
    image.flags.writeable = False
    return SimpleNamespace(image=image, mask=mask > 0, box=box)


@pytest.fixture(scope="session")
def patchwork():
    """A picture (64, 80, 3) whose ellipse GrabCut finds or not, as its random start has it."""
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 256, (8, 10, 3)), np.ones((8, 8, 1))) / 2
    image += rng.normal(40, 10, image.shape)
    mask = cv2.ellipse(np.zeros((64, 80), np.uint8), (42, 30), (20, 13), 25, 0, 360, 1, -1)
    image[mask > 0] += 44
    return image.clip(0, 255).astype(np.uint8)
