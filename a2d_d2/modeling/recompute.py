"""Activation checkpointing of a backbone: less memory in training for more time."""

import contextlib
import functools
import math
from collections.abc import Iterator

import torch
from detectron2.layers import CNNBlockBase
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute_stages(backbone: nn.Module) -> None:
    """Makes the stages of a ResNet keep the input of every few blocks alone in training.

    The backward pass computes the rest again, a few blocks at a time: of n blocks in a stage about
    the square root of n. Losses, gradients, running statistics and the names of the parameters are
    as without it. Evaluation is not touched.

    Raises:
        ValueError: the backbone has no such stages.
    """
    stages = [module for module in backbone.modules() if _is_stage(module)]
    if not stages:
        raise ValueError(
            f"MODEL.BACKBONE.RECOMPUTE is True, but {type(backbone).__name__} has no stages of "
            "Detectron2's residual blocks (CNNBlockBase); set it to False"
        )
    for stage in stages:
        stage.forward = _Recomputed(stage)


def _is_stage(module: nn.Module) -> bool:
    is_sequence = isinstance(module, nn.Sequential) and len(module) > 0
    return is_sequence and all(isinstance(x, CNNBlockBase) for x in module)


class _Recomputed:
    """The forward of a stage; an attribute of the stage in place of the method of its class."""

    def __init__(self, stage: nn.Sequential):
        self.stage = stage

    def __call__(self, x: Tensor) -> Tensor:
        if not (self.stage.training and torch.is_grad_enabled()):
            return nn.Sequential.forward(self.stage, x)
        size = math.ceil(math.sqrt(len(self.stage)))
        for start in range(0, len(self.stage), size):
            blocks = self.stage[start : start + size]
            contexts = functools.partial(_contexts, blocks)
            x = checkpoint(blocks, x, use_reentrant=False, context_fn=contexts)
        return x


def _contexts(blocks: nn.Module) -> tuple:
    """Those of the first and of the second time."""
    return contextlib.nullcontext(), _without_statistics(blocks)


@contextlib.contextmanager
def _without_statistics(blocks: nn.Module) -> Iterator[None]:
    """Batch norms count a batch once, not again when it is computed again."""
    norms = [m for m in blocks.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, _, count in kept:
        norm.momentum = 0.0
        norm.num_batches_tracked = count.clone()
    try:
        yield
    finally:
        for norm, momentum, count in kept:
            norm.momentum, norm.num_batches_tracked = momentum, count
