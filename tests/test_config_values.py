"""What each key is refused, one value a rule; on the function, not by trainings."""

import re

import pytest
from detectron2.config import CfgNode, get_cfg

from a2d_d2.config import add_a2d_config
from a2d_d2.config_values import RULES, check_values

LEVELS = ["p2", "p3", "p4"]
PYRAMID = {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone_without_pooling",
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4"],
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4"],
    "MODEL.RPN.IN_FEATURES": LEVELS,
    "MODEL.ROI_HEADS.IN_FEATURES": LEVELS,
}


def changed(values: dict) -> CfgNode:
    cfg = get_cfg()
    add_a2d_config(cfg)
    for key, value in (PYRAMID | values).items():
        *parents, leaf = key.split(".")
        node = cfg
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    return cfg


WRONG = [
    ("SOLVER.CHECKPOINT_PERIOD", 0, "a whole number of at least 1"),
    ("SOLVER.MAX_ITER", -3, "a whole number of at least 1"),
    ("SOLVER.MAX_ITER", 10**21, "whole ones at most 2147483647"),
    ("SOLVER.BASE_LR", float("inf"), "its numbers must be finite"),
    ("SOLVER.BASE_LR", -1.0, "a finite number above 0"),
    ("SOLVER.CHECKPOINTS_KEPT", -1, "a whole number of at least 0"),
    ("SOLVER.MAX_SKIPPED_STEPS", -1, "a whole number of at least 0"),
    ("SEED", -5, "a whole number of at least -1"),
    ("SOLVER.GAMMA", 2.0, "above 0 and up to 1"),
    ("SOLVER.NUM_DECAYS", 1001, "from 0 to 1000"),
    ("SOLVER.MOMENTUM", 1.0, "at least 0 and below 1"),
    ("SOLVER.WEIGHT_DECAY", -0.1, "a finite number of at least 0"),
    ("SOLVER.WEIGHT_DECAY_BIAS", "x", "None or a number of at least 0"),
    ("SOLVER.OPTIMIZER", "ADAMV", "one of ADAMW, SGD; the nearest is ADAMW"),
    ("SOLVER.WARMUP_METHOD", "foo", "one of constant, linear$"),
    ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "False: set SOLVER.MAX_GRAD_NORM instead"),
    ("MODEL.META_ARCHITECTURE", "RetinaNet", "one of .*GeneralizedRCNN"),
    ("MODEL.RPN.HEAD_NAME", "foo", "one of StandardRPNHead$"),
    ("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvHead", "the nearest is FastRCNNConvFCHead"),
    ("MODEL.ROI_HEADS.NAME", "RROIHeads", "one of ActorActionROIHeads"),
    ("MODEL.TEMPORAL.NAME", "foo", "one of .*TemporalConv"),
    ("MODEL.RESNETS.NORM", "NaiveSyncBN", r'one of "", BN, .*nearest is naiveSyncBN'),
    ("MODEL.RESNETS.DEPTH", 7, "18, 34, 50, 101 or 152"),
    ("MODEL.RESNETS.OUT_FEATURES", [], "some of res2, res3, res4, res5, each once"),
    ("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False], "a list of 4 values"),
    ("MODEL.FPN.OUT_CHANNELS", 0, "from 1 to 16384"),
    ("MODEL.TEMPORAL.NUM_LAYERS", -1, "from 0 to 64"),
    ("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 0, "from 1 to 256"),
    ("MODEL.PIXEL_MEAN", [1.0], "a list of 3 values, each a finite number"),
    ("MODEL.PIXEL_MEAN", [[1.0], 2.0, 3.0], "a list without lists"),
    ("MODEL.FLOW.PIXEL_STD", [1.0, 1.0, 0.0], "each a finite number above 0"),
    ("MODEL.ANCHOR_GENERATOR.SIZES", [], "a list of lists of positive numbers"),
    ("MODEL.ANCHOR_GENERATOR.SIZES", [[16], []], "a list of lists of positive numbers"),
    ("MODEL.RPN.IN_FEATURES", ["p2", "p2"], "names without repetition"),
    ("MODEL.RPN.CONV_DIMS", [0], "a list of widths"),
    ("MODEL.RPN.IOU_THRESHOLDS", [0.7, 0.3], "rising numbers above 0 and up to 1"),
    ("MODEL.RPN.IOU_LABELS", [0, 2, 1], "a list of -1, 0 and 1"),
    ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", -3, "a whole number of at least 1"),
    ("MODEL.ROI_HEADS.POSITIVE_FRACTION", 1.5, "a number from 0 to 1"),
    ("MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS", (1.0,), "lists of 4 positive numbers"),
    ("MODEL.KEYPOINT_ON", True, "False: there are no keypoints here"),
    ("INPUT.MIN_SIZE_TRAIN", (), "a list of at least one value"),
    ("INPUT.MIN_SIZE_TRAIN", (64.5,), "each a whole number from 1"),
    ("INPUT.RANDOM_FLIP", "horizontale", "the nearest is horizontal$"),
    ("INPUT.CLIP.LENGTH", 10**8 + 1, "from 1 to 1000"),
    ("OUTPUT_DIR", "", "the name of a folder"),
    ("SOLVER.STEPS", (0.5,), "a list of whole numbers$"),
    ("TEST.BEST_METRIC", "segmentation/joint/mIoUX", "nearest is segmentation/joint/mIoU$"),
    ("TEST.BEST_METRIC", "segmentatoin/joint/mIoU", "nearest is segmentation/joint/mIoU$"),
    ("TEST.BEST_METRIC", "detection/joint/mAP/", "nearest is detection/joint/mAP$"),
    ("TEST.BEST_METRIC", "a2d_test/detection/joint/mAP", "nearest is detection/joint/mAP$"),
    ("DATASETS.TEST", ("a2d_test", "a2d_test"), "a list of names without repetition"),
]


@pytest.mark.parametrize(("key", "value", "allowed"), WRONG)
def test_a_rule(key, value, allowed):
    with pytest.raises(ValueError, match=rf"^{key} is .*; (it|its numbers) must be .*") as caught:
        check_values(changed({key: value}))
    assert re.search(allowed, str(caught.value)) and len(str(caught.value).splitlines()) == 1


# Right by themselves, not together: (the changed keys, of which the first is named, the words).
TOGETHER = [
    ({"SOLVER.REFERENCE_WORLD_SIZE": 3}, "divide SOLVER.IMS_PER_BATCH 16"),
    ({"SOLVER.STEPS": (7, 5)}, "rising"),
    ({"SOLVER.STEPS": (40000,)}, "below SOLVER.MAX_ITER 40000"),
    (
        {"SOLVER.BASE_LR_END": 1.0, "SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR"},
        "at most SOLVER.BASE_LR",
    ),
    ({"SOLVER.NESTEROV": True, "SOLVER.MOMENTUM": 0.0}, "SOLVER.MOMENTUM above 0"),
    ({"INPUT.MIN_SIZE_TRAIN": (9, 8), "INPUT.MIN_SIZE_TRAIN_SAMPLING": "range"}, "smallest"),
    ({"INPUT.CROP.SIZE": [2.0, 0.5]}, "at most 1"),
    ({"INPUT.CROP.SIZE": [9.5, 9.0], "INPUT.CROP.TYPE": "absolute"}, "whole numbers of pixels"),
    ({"INPUT.CROP.SIZE": [9, 8], "INPUT.CROP.TYPE": "absolute_range"}, "smallest"),
    ({"MODEL.RESNETS.RES2_OUT_CHANNELS": 256, "MODEL.RESNETS.DEPTH": 18}, "must be 64"),
    (
        {
            "MODEL.RESNETS.DEFORM_ON_PER_STAGE": [True] * 4,
            "MODEL.RESNETS.DEPTH": 34,
            "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
        },
        "need a GPU",
    ),
    ({"MODEL.FPN.IN_FEATURES": ["res2", "res4"]}, "neighbouring stages"),
    ({"MODEL.FPN.IN_FEATURES": ["res4", "res5"]}, "of MODEL.RESNETS.OUT_FEATURES"),
    (
        {
            "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4"],
            "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
        },
        "must end with res5",
    ),
    (
        {
            "MODEL.RESNETS.RES5_DILATION": 2,
            "MODEL.RESNETS.OUT_FEATURES": ["res4", "res5"],
            "MODEL.FPN.IN_FEATURES": ["res4", "res5"],
        },
        "it is 1",
    ),
    ({"MODEL.RPN.IN_FEATURES": ["p2", "p6"]}, "some of p2, p3, p4, the levels of"),
    (
        {
            "MODEL.RPN.IN_FEATURES": ["res3", "res4"],
            "MODEL.BACKBONE.NAME": "build_resnet_backbone",
        },
        "one level",
    ),
    ({"MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p4"]}, "neighbouring levels"),
    ({"MODEL.FPN.OUT_CHANNELS": 40, "MODEL.FPN.NORM": "GN"}, "a multiple of 32"),
    ({"MODEL.RESNETS.WIDTH_PER_GROUP": 40, "MODEL.RESNETS.NORM": "GN"}, "a multiple of 32"),
    ({"MODEL.ANCHOR_GENERATOR.SIZES": [[8], [16]]}, "one for each of MODEL.RPN.IN_FEATURES"),
    ({"MODEL.ANCHOR_GENERATOR.SIZES": [[8], [16, 24], [32]]}, "as many anchors on each level"),
    ({"MODEL.RPN.IOU_LABELS": [0, 1]}, "one label more"),
    ({"MODEL.ROI_ACTION_HEAD.NUM_FC": 0}, "at least 1"),
    (
        {"MODEL.ROI_HEADS.IN_FEATURES": LEVELS, "MODEL.ROI_HEADS.NAME": "Res5ROIHeads"},
        "one level",
    ),
    ({"MODEL.ROI_HEADS.NAME": "CascadeROIHeads"}, "CLS_AGNOSTIC_BBOX_REG True"),
]


@pytest.mark.parametrize(("values", "words"), TOGETHER)
def test_keys_that_do_not_go_together(values, words):
    with pytest.raises(ValueError, match=rf"^{next(iter(values))} is .*{words}"):
        check_values(changed(values))


def test_what_is_right_passes():
    """Each rule accepts its default: those of the keys that no other value is tried of, too."""
    check_values(changed({"MODEL.ANCHOR_GENERATOR.SIZES": [8, 16]}))
    check_values(changed({"SOLVER.STEPS": (50000, 10)} | {"SOLVER.WEIGHT_DECAY_BIAS": 0.1}))
    check_values(changed({"TEST.BEST_METRIC": "", "DATASETS.TEST": ("a2d_val", "a2d_test")}))
    check_values(changed({"TEST.BEST_METRIC": "tracking/HOTA"}))  # of an evaluator of one's own
    assert len(RULES) > 100
