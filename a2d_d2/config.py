"""Configuration keys of the project, and the one function that sets a configuration up."""

import logging
import os

import torch
from detectron2.config import CfgNode as CN
from detectron2.config import get_cfg
from detectron2.utils import comm

from a2d_d2.config_values import check_values
from a2d_d2.data.registration import register_release
from a2d_d2.label_space import LabelSpace
from a2d_d2.modeling.classes import num_region_classes
from a2d_d2.modeling.system import check_system
from a2d_d2.utils.config_files import (
    BASE_KEY,
    flat_keys,
    merge_file,
    merge_options,
    read_keys,
)

logger = logging.getLogger(__name__)


def add_a2d_config(cfg: CN) -> None:
    """Adds the keys of a2d_d2 to ``cfg``, with the paper's setting as the default if it can run."""
    _add_data_config(cfg)
    _add_model_config(cfg)

    # "SGD" (the paper) or "ADAMW" (training from scratch).
    cfg.SOLVER.OPTIMIZER = "SGD"
    # Largest norm of the gradient over all parameters together; 0 turns clipping off. The paper's
    # released code has 5.
    cfg.SOLVER.MAX_GRAD_NORM = 5.0
    # Equal parts that a process cuts its share of IMS_PER_BATCH into; they go through the model one
    # after the other, and their gradients are averaged. Memory is that of one part. Losses and
    # batch statistics are of each part, as if it had a process of its own.
    cfg.SOLVER.ACCUMULATE = 1
    # Type of the forward pass when SOLVER.AMP.ENABLED: "bfloat16" (CPU and GPU) or "float16" (GPU).
    cfg.SOLVER.AMP.PRECISION = "bfloat16"

    # Number of periodic checkpoints (SOLVER.CHECKPOINT_PERIOD) that are kept, the newest ones; 0
    # keeps all. With 1 there is none to go back to when the last one is broken.
    cfg.SOLVER.CHECKPOINTS_KEPT = 3
    # Number of steps of a run that may be left out because their loss or gradient is not finite;
    # the next one ends the training. Each is written to OUTPUT_DIR/non_finite for replay.
    cfg.SOLVER.MAX_SKIPPED_STEPS = 0
    # Use deterministic kernels of torch where there are any, and warn where there are none (GPU).
    cfg.SOLVER.DETERMINISTIC = False

    # How instances become one label map (README, "From instances to a label map"): instances below
    # either threshold are not painted. Inference thresholds of the paper's released code.
    cfg.TEST.ACTOR_THRESH = 0.7
    cfg.TEST.ACTION_THRESH = 0.3
    # Annotated frames that an evaluation runs at once. Frames of different sizes are padded to the
    # largest, which the network may see.
    cfg.TEST.IMS_PER_BATCH = 1
    # Number of test frames drawn beside their ground truth after each evaluation; 0 draws none.
    cfg.TEST.NUM_PICTURES = 8
    # Score that chooses the best checkpoint, as a path in metrics.json, of the first data set of
    # DATASETS.TEST; "" keeps none.
    cfg.TEST.BEST_METRIC = "segmentation/joint/mIoU"


def _add_data_config(cfg: CN) -> None:
    # Folder that holds videoset.csv, for the names a2d_train, a2d_val and a2d_test;
    # "" means $DETECTRON2_DATASETS/A2D/Release.
    cfg.DATASETS.ROOT = ""
    # YAML file of actors, actions and valid pairs; "" means A2D's own.
    cfg.DATASETS.LABEL_SPACE = ""
    # K: every K-th training video, in the order of their ids, is left out of a2d_train and forms
    # a2d_val, on which settings can be chosen; 0 holds none out (the paper).
    cfg.DATASETS.HOLD_OUT = 0

    cfg.INPUT.CLIP = CN()
    # T: frames in the window around an annotated frame, and the step between them in frames.
    cfg.INPUT.CLIP.LENGTH = 5
    cfg.INPUT.CLIP.STRIDE = 1
    # Put the annotated frame at a random place of the training window, as the paper's released code
    # does, instead of its middle.
    cfg.INPUT.CLIP.RANDOM_PLACEMENT = False
    # Folder written by tools/prepare_clips.py; "" decodes videos and computes flow on the fly.
    cfg.INPUT.CLIP.CACHE = ""
    # Optical flow: "dis" (DIS, medium), "farneback" or "tvl1" (needs opencv-contrib; the paper's).
    cfg.INPUT.FLOW_METHOD = "dis"
    # Largest relative change of brightness, contrast and saturation of a training clip; 0 is off.
    cfg.INPUT.COLOR_JITTER = 0.0


def _add_model_config(cfg: CN) -> None:
    cfg.MODEL.META_ARCHITECTURE = "ActorActionRCNN"
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.ROI_HEADS.NAME = "ActorActionROIHeads"
    # What the classes of the region heads stand for: "actors", or the valid (actor, action) "pairs"
    # (baselines of section 4.3 and Table 2). MODEL.ROI_HEADS.NUM_CLASSES follows from it.
    cfg.MODEL.CLASSES = "actors"
    # "joint" trains everything; "actor" the appearance stream and its heads alone; "action" the
    # flow stream, temporal modules and action head on a frozen actor branch; "separate" first the
    # one, then the other, for SOLVER.MAX_ITER steps each (section 4.3).
    cfg.MODEL.TRAIN_BRANCH = "joint"
    # Start the rows of the actors, or of their pairs, from the COCO classes that the label space
    # names for the actors.
    cfg.MODEL.ACTORS_FROM_COCO = True
    # Box size in pixels that goes to pyramid level 4 in every region pooler (FPN, equation 1).
    # Small frames need a smaller one, or every region lands on the finest level.
    cfg.MODEL.ROI_HEADS.CANONICAL_BOX_SIZE = 224

    # Keep the inputs of a few of the backbones' residual blocks alone in training, and compute the
    # rest a second time in the backward pass: the same gradients for less memory and more time.
    cfg.MODEL.BACKBONE.RECOMPUTE = False

    # Two-stage refinement (section 4.3): what gives the boxes of a model without a mask head masks
    # at evaluation. A name in SEGMENTER_REGISTRY, "package.module:name", or "" for none.
    cfg.MODEL.SEGMENTER = CN()
    cfg.MODEL.SEGMENTER.NAME = ""
    # Detections below this actor score get no mask, which saves time.
    cfg.MODEL.SEGMENTER.MIN_SCORE = 0.05

    # The motion backbone mirrors MODEL.BACKBONE with its own parameters (section 3.2).
    cfg.MODEL.FLOW = CN()
    cfg.MODEL.FLOW.ENABLED = True
    # Mean and standard deviation of x, y and magnitude, in pixels per frame. 20 pixels become 128,
    # the range of the images that the zoo's ResNets were trained on.
    cfg.MODEL.FLOW.PIXEL_MEAN = [0.0, 0.0, 0.0]
    cfg.MODEL.FLOW.PIXEL_STD = [0.15625, 0.15625, 0.15625]
    # Start weights of the motion backbone (ImageNet); "" starts at random.
    cfg.MODEL.FLOW.WEIGHTS = ""

    # Aggregation over time, per pyramid level and stream (section 3.2).
    cfg.MODEL.TEMPORAL = CN()
    cfg.MODEL.TEMPORAL.ENABLED = True
    cfg.MODEL.TEMPORAL.NAME = "TemporalConv"
    # Number of 3x1x1 layers; each reaches one frame further to both sides.
    cfg.MODEL.TEMPORAL.NUM_LAYERS = 1

    # Fusion of the two streams (section 3.2: concatenation).
    cfg.MODEL.FUSION = CN()
    cfg.MODEL.FUSION.NAME = "ConcatFusion"

    # Action classifier on RoIAlign-AN of the fused pyramid (section 3.2).
    cfg.MODEL.ROI_ACTION_HEAD = CN()
    cfg.MODEL.ROI_ACTION_HEAD.NAME = "ActionHead"
    # |Y|; set from the label space.
    cfg.MODEL.ROI_ACTION_HEAD.NUM_CLASSES = 9
    cfg.MODEL.ROI_ACTION_HEAD.POOLER_RESOLUTION = 7
    # Bilinear samples per bin and axis; 0 adapts to the region.
    cfg.MODEL.ROI_ACTION_HEAD.POOLER_SAMPLING_RATIO = 0
    cfg.MODEL.ROI_ACTION_HEAD.POOLER_TYPE = "ROIAlignV2"
    # Convolutions and fully connected layers before the classifier, and their widths.
    cfg.MODEL.ROI_ACTION_HEAD.NUM_CONV = 0
    cfg.MODEL.ROI_ACTION_HEAD.CONV_DIM = 256
    cfg.MODEL.ROI_ACTION_HEAD.NUM_FC = 2
    cfg.MODEL.ROI_ACTION_HEAD.FC_DIM = 1024
    # Names of actors whose regions do not count in the action loss (zero-shot, section 4.4).
    cfg.MODEL.ROI_ACTION_HEAD.EXCLUDED_ACTORS = []

    # The five weights of equation (1). The second covers the boxes of RPN and of the regions.
    cfg.MODEL.LOSS_WEIGHTS = CN()
    cfg.MODEL.LOSS_WEIGHTS.RPN_CLS = 1.0
    cfg.MODEL.LOSS_WEIGHTS.BOX_REG = 1.0
    cfg.MODEL.LOSS_WEIGHTS.ACTOR = 1.0
    cfg.MODEL.LOSS_WEIGHTS.ACTION = 1.0
    cfg.MODEL.LOSS_WEIGHTS.MASK = 1.0


def setup_cfg(config_file: str = "", opts: list[str] = ()) -> CN:
    """Builds the frozen configuration that training, tools and tests share.

    Defaults, then ``config_file`` (with its ``_BASE_``), then ``opts`` (KEY VALUE pairs). The class
    counts are set from the label space, ``a2d_train``, ``a2d_val`` and ``a2d_test`` registered
    under ``DATASETS.ROOT``, and MODEL.DEVICE falls back to the CPU where there is no GPU, which
    the log says.

    Raises:
        ValueError: names the wrong key, the file or option that holds it and the nearest key, or
            the keys that do not go together.
    """
    cfg = get_cfg()
    add_a2d_config(cfg)
    if config_file:
        merge_file(cfg, config_file)
    merge_options(cfg, list(opts))
    check_values(cfg)
    check_system(cfg)
    label_space = LabelSpace.load(cfg.DATASETS.LABEL_SPACE)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_region_classes(label_space, cfg.MODEL.CLASSES)
    cfg.MODEL.ROI_ACTION_HEAD.NUM_CLASSES = label_space.num_actions
    for split in ("train", "val", "test"):
        register_release(
            f"a2d_{split}", cfg.DATASETS.ROOT, split, label_space, cfg.DATASETS.HOLD_OUT
        )
    try:
        torch.device(cfg.MODEL.DEVICE)
    except RuntimeError as error:
        raise ValueError(
            f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, which is no device; use cuda or cpu"
        ) from error
    if not torch.cuda.is_available() and cfg.MODEL.DEVICE != "cpu":
        if comm.is_main_process():
            logger.info("MODEL.DEVICE is %s; there is no GPU: on the CPU", cfg.MODEL.DEVICE)
        cfg.MODEL.DEVICE = "cpu"
    cfg.freeze()
    return cfg


def check_device(device: str) -> None:
    """ValueError unless this machine has the device, which somebody asked for."""
    there = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    there = ["cpu", *(["cuda", *there] if there else [])]
    if device not in there:
        raise ValueError(
            f"device is {device}, which this machine does not have; use {' or '.join(there)}"
        )


def system_options(path: str | os.PathLike) -> list[str]:
    """A configuration file as KEY VALUE texts, to be given over another base than its own.

    Only its own keys: those of its ``_BASE_`` are left out. ``merge_from_list`` and the command
    line read the values as Detectron2 reads them in the file.

    Raises:
        ValueError: the file cannot be read or is no configuration; names it.
    """
    values = read_keys(path)
    values.pop(BASE_KEY, None)
    return [
        text
        for key, value in flat_keys(values, path)
        for text in (key, value if isinstance(value, str) else repr(value))
    ]
