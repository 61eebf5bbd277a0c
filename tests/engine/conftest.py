"""Settings of a network small enough to train in a test."""

import pytest

CONFIG = "configs/synthetic/R18_FPN.yaml"


@pytest.fixture
def tiny_options(tiny_release, tmp_path):
    """KEY VALUE pairs over the synthetic config: 64-pixel frames, few channels, four steps."""
    values = {
        "DATASETS.ROOT": tiny_release,
        "OUTPUT_DIR": tmp_path / "output",
        "MODEL.DEVICE": "cpu",
        "MODEL.FPN.OUT_CHANNELS": 8,
        "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
        "MODEL.ROI_ACTION_HEAD.FC_DIM": 16,
        "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
        "INPUT.MIN_SIZE_TRAIN": "(64,)",
        "INPUT.MIN_SIZE_TEST": 64,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": 4,
        "SOLVER.WARMUP_ITERS": 1,
        "SOLVER.CHECKPOINT_PERIOD": 2,
        "DATALOADER.NUM_WORKERS": 0,
        "TEST.NUM_PICTURES": 1,
        "TEST.DETECTIONS_PER_IMAGE": 5,
        "SEED": 1,
    }
    return [text for item in values.items() for text in map(str, item)]
