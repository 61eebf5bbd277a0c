"""Fixtures that the whole suite shares."""

import contextlib
import os
import resource

# Many small tensors: a second thread costs more than it gives. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.utils.logger import setup_logger

torch.set_num_threads(1)

SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.PIXEL_STD": [58.0, 57.0, 57.0],
    "MODEL.FLOW.PIXEL_STD": [2.0, 2.0, 2.0],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[8], [16], [24], [36], [48]],
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 200,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 100,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 50,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 20,
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_HEADS.NUM_CLASSES": 7,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16,
    "MODEL.ROI_HEADS.CANONICAL_BOX_SIZE": 28,
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 1,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 16,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_ACTION_HEAD.FC_DIM": 32,
}


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


@pytest.fixture
def full_disk():
    """A context in which no file can grow beyond 4000 bytes: the kernel refuses, as on a full disk.

    Not the whole test: what pytest prints may go to a file too.
    """

    @contextlib.contextmanager
    def limit():
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


@pytest.fixture
def small_cfg():
    """small_cfg("KEY", value, ...): a tiny ResNet-18 model, with keys changed."""

    def make(*options):
        from a2d_d2.config import add_a2d_config

        cfg = get_cfg()
        add_a2d_config(cfg)
        cfg.merge_from_list([x for pair in SMALL.items() for x in pair])
        cfg.merge_from_list(list(options))
        cfg.freeze()
        return cfg

    return make


@pytest.fixture
def small_model(small_cfg):
    """small_model("KEY", value, ..., seed=0): the model of small_cfg with reproducible weights."""

    def make(*options, seed=0):
        torch.manual_seed(seed)
        return build_model(small_cfg(*options))

    return make


@pytest.fixture
def random_weights(monkeypatch):
    """Streaming predictors get the weights of a random model, the same each time, not a file's."""
    from a2d_d2.inference import streaming

    def load(model, cfg):
        # Else all classes are as likely, and which detections are kept is a matter of rounding.
        model.roi_heads.box_predictor.cls_score.weight.data *= 30

    def build(cfg):
        torch.manual_seed(0)
        return build_model(cfg)

    monkeypatch.setattr(streaming, "load_trained_weights", load)
    monkeypatch.setattr(streaming, "build_model", build)
