"""A tiny configuration and hand-made clips for the model's tests."""

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

import a2d_d2.modeling  # noqa: F401  (registers the modules)
from a2d_d2.config import add_a2d_config

SIZE = 64

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


@pytest.fixture
def small_cfg():
    """small_cfg("KEY", value, ...): a tiny ResNet-18 model, with keys changed."""

    def make(*options):
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
def make_clip():
    """make_clip(frames, keys, ...): a clip as ClipDatasetMapper gives it, of random pixels.

    ``boxes`` are the instances of every key frame, (x1, y1, x2, y2, actor, action).
    """

    def make(
        frames=3,
        keys=(1,),
        boxes=((10, 12, 40, 50, 6, 6),),
        *,
        radius=1,
        height=SIZE,
        width=SIZE,
        seed=0,
    ):
        generator = torch.Generator().manual_seed(seed)
        flow = torch.randn(frames, 2, height, width, generator=generator)
        steps = torch.arange(-radius, radius + 1)
        neighbours = torch.tensor(keys)[:, None] + steps
        neighbours[(neighbours < 0) | (neighbours >= frames)] = -1
        instances = []
        for _ in keys:
            masks = np.zeros((len(boxes), height, width), dtype=bool)
            for mask, (x1, y1, x2, y2, _, _) in zip(masks, boxes, strict=True):
                mask[y1:y2, x1:x2] = True
            values = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 6)
            truth = Instances((height, width))
            truth.gt_boxes = Boxes(values[:, :4])
            truth.gt_classes = values[:, 4].long()
            truth.gt_actions = values[:, 5].long()
            truth.gt_masks = BitMasks(torch.from_numpy(masks))
            instances.append(truth)
        return {
            "image": torch.randint(
                0, 256, (frames, 3, height, width), dtype=torch.uint8, generator=generator
            ),
            "flow": torch.cat([flow, flow.norm(dim=1, keepdim=True)], dim=1),
            "key_positions": list(keys),
            "neighbours": neighbours,
            "instances": instances,
            "height": height,
            "width": width,
        }

    return make


@pytest.fixture
def losses_of():
    """losses_of(model, clips): the training losses, with sampling that is the same every time."""

    def run(model, clips, seed=0):
        torch.manual_seed(seed)
        with EventStorage():
            return model.train()(clips)

    return run
