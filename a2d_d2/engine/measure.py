"""Time and memory of one training and one inference step on clips of a given size."""

import pickle
import tempfile
from pathlib import Path

import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from a2d_d2.benchmark.common import (
    machine,
    mask_rcnn_cfg,
    median_seconds,
    peak_bytes,
    peak_gpu_bytes,
    random_model,
    shrink_residuals,
)
from a2d_d2.data.windows import make_window
from a2d_d2.engine.optimizer import build_optimizer
from a2d_d2.label_space import LabelSpace
from a2d_d2.modeling.start_weights import load_start_weights
from a2d_d2.modeling.system import takes_clips
from a2d_d2.modeling.temporal import temporal_radius

ZOO_MODEL = "COCO-InstanceSegmentation/mask_rcnn_R_{depth}_FPN_3x.yaml"


def stand_in_weights(depth: int, folder: Path) -> tuple[Path, Path]:
    """Writes checkpoints of random values in the formats of Detectron2's model zoo.

    Returns:
        Paths of a COCO Mask R-CNN and of an ImageNet ResNet of the given depth.
    """
    cfg = model_zoo.get_config(ZOO_MODEL.format(depth=depth))
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg)
    shrink_residuals(model)
    coco, imagenet = folder / "mask_rcnn.pkl", folder / "resnet.pkl"
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    with open(coco, "wb") as stream:
        pickle.dump({"model": weights, "__author__": "Detectron2 Model Zoo"}, stream)
    prefix = "backbone.bottom_up."
    resnet = {n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)}
    header = {"__author__": "torchvision", "matching_heuristics": True}
    with open(imagenet, "wb") as stream:
        pickle.dump({"model": resnet} | header, stream)
    return coco, imagenet


def random_clip(cfg: CfgNode, height: int, width: int, seed: int = 0, instances: int = 2) -> dict:
    """A clip as the mapper makes it, of noise, with instances side by side on its key frame."""
    random = np.random.default_rng(seed)
    length = cfg.INPUT.CLIP.LENGTH
    window = make_window(
        100, 200, length=length, stride=cfg.INPUT.CLIP.STRIDE, radius=temporal_radius(cfg)
    )
    shape = (len(window.frames), 3, height, width)
    masks = torch.zeros(instances, height, width, dtype=torch.bool)
    for i, mask in enumerate(masks):
        left, right = (width * k // instances for k in (i, i + 1))
        mask[height // 4 : height * 3 // 4, left : right - (right - left) // 4] = True
    truth = Instances((height, width))
    truth.gt_masks = BitMasks(masks)
    truth.gt_boxes = truth.gt_masks.get_bounding_boxes()
    truth.gt_boxes = Boxes(truth.gt_boxes.tensor.float())
    pairs = LabelSpace.load(cfg.DATASETS.LABEL_SPACE).valid_pairs
    chosen = [pairs[-(i % 2)] for i in range(instances)]
    truth.gt_classes = torch.tensor([actor for actor, _ in chosen])
    truth.gt_actions = torch.tensor([action for _, action in chosen])
    return {
        "image": torch.from_numpy(random.integers(0, 256, shape, dtype=np.uint8)),
        "flow": torch.from_numpy(random.normal(0, 2, shape).astype(np.float32)),
        "key_positions": list(window.keys),
        "neighbours": torch.tensor(window.neighbours),
        "instances": [truth],
        "height": height,
        "width": width,
    }


def measure(cfg: CfgNode, height: int, width: int, repeats: int, stand_ins: bool) -> dict:
    """Measures steps of the configured model on one clip, and one frame of stock Mask R-CNN.

    Args:
        cfg: of the model; its start weights are loaded.
        height, width: of the frames.
        repeats: measured repetitions after one to warm up; times are medians.
        stand_ins: make start-weight files in the zoo's formats first, and load those.

    Returns:
        Seconds and GiB by name, tensors loaded per stream, and the machine.

    Raises:
        ValueError: the model takes single frames.
    """
    if not takes_clips(cfg):
        raise ValueError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}: only a model of clips is "
            "measured, with Mask R-CNN beside it; give such a --config-file"
        )
    if stand_ins:
        with tempfile.TemporaryDirectory() as folder:
            coco, imagenet = stand_in_weights(cfg.MODEL.RESNETS.DEPTH, Path(folder))
            cfg = cfg.clone()
            cfg.merge_from_list(["MODEL.WEIGHTS", str(coco), "MODEL.FLOW.WEIGHTS", str(imagenet)])
            model, weights = _build(cfg)
    else:
        model, weights = _build(cfg)
    clip = random_clip(cfg, height, width)
    optimizer = build_optimizer(cfg, model)

    def train_step():
        optimizer.zero_grad()
        losses = model([clip])
        sum(losses.values()).backward()
        optimizer.step()

    def infer():
        with torch.no_grad():
            model([clip])

    result = {
        "machine": machine(),
        "frames": {"height": height, "width": width, "computed": len(clip["image"])},
        "start_weights": {
            name: {"loaded": w.loaded, "total": w.total, "left": list(w.left)}
            for name, w in weights.items()
        },
        "parameters_millions": sum(p.numel() for p in model.parameters()) / 1e6,
    }
    model.eval()
    result["inference_seconds"] = median_seconds(infer, repeats)
    result["inference_peak_gib"] = _peak_gib()
    model.train()
    with EventStorage(0):
        result["training_seconds"] = median_seconds(train_step, repeats)
    # So far: the kernel's figure may fall by some pages.
    result["training_peak_gib"] = max(result["inference_peak_gib"], _peak_gib())
    result["mask_rcnn_inference_seconds"] = _mask_rcnn_seconds(cfg, clip, repeats)
    return result


def _build(cfg: CfgNode) -> tuple[nn.Module, dict]:
    model = build_model(cfg)
    return model, load_start_weights(model, cfg)


def _mask_rcnn_seconds(cfg: CfgNode, clip: dict, repeats: int) -> float:
    """Seconds a frame of Detectron2's Mask R-CNN on the same backbone, for the ratio."""
    model = random_model(mask_rcnn_cfg(cfg))
    frame = {"image": clip["image"][0], "height": clip["height"], "width": clip["width"]}
    with torch.no_grad():
        return median_seconds(lambda: model([frame]), repeats)


def _peak_gib() -> float:
    """The largest memory so far: of the GPU where there is one, else of this process."""
    gpu = peak_gpu_bytes()
    return (peak_bytes() if gpu is None else gpu) / 2**30
