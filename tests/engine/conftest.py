"""Settings of a network small enough to train in a test."""

import pytest

from a2d_d2.engine.kills import TINY


@pytest.fixture
def tiny_options(tiny_release, tmp_path):
    """KEY VALUE pairs over the synthetic config: 64-pixel frames, few channels, four steps."""
    values = TINY | {
        "DATASETS.ROOT": tiny_release,
        "OUTPUT_DIR": tmp_path / "output",
        "SOLVER.MAX_ITER": 4,
        "DATALOADER.NUM_WORKERS": 0,
        "TEST.NUM_PICTURES": 1,
    }
    return [text for item in values.items() for text in map(str, item)]
