"""Fixtures that the whole suite shares."""

import os

# Many small tensors: a second thread costs more than it gives. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from detectron2.utils.logger import setup_logger

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_release(tmp_path_factory):
    """The folder of a generated release: 4 training and 2 test videos of 12 frames, 64x80 pixels.

    Shared by all tests: none may write into it.
    """
    from a2d_d2.data.synthetic import make_release

    root = tmp_path_factory.mktemp("release") / "A2D"
    make_release(root, 4, 2, seed=3, height=64, width=80, num_frames=12, workers=1, progress=False)
    return root


@pytest.fixture
def package_log(caplog):
    """caplog that also hears Detectron2's loggers, which do not propagate."""
    for name in ("detectron2", "a2d_d2", "fvcore"):
        logger = setup_logger(name=name)
        logger.addHandler(caplog.handler)
    yield caplog
    for name in ("detectron2", "a2d_d2", "fvcore"):
        setup_logger(name=name).removeHandler(caplog.handler)
