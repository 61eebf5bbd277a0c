"""Activation checkpointing of a backbone: less memory in training for more time."""

import contextlib
from collections.abc import Iterator

import torch
from detectron2.layers import CNNBlockBase
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute_blocks(backbone: nn.Module) -> None:
    """Makes the residual blocks of a backbone keep their inputs alone in training.

    The backward pass computes the rest of a block again. Losses, gradients, running statistics and
    the names of the parameters are as without it. Evaluation is not touched.

    Raises:
        ValueError: the backbone has no such blocks.
    """
    blocks = [module for module in backbone.modules() if isinstance(module, CNNBlockBase)]
    if not blocks:
        raise ValueError(
            f"MODEL.BACKBONE.RECOMPUTE is True, but {type(backbone).__name__} has none of "
            "Detectron2's residual blocks (CNNBlockBase); set it to False"
        )
    for block in blocks:
        block.forward = _Recomputed(block)


class _Recomputed:
    """The forward of a block; an attribute of the block in place of the method of its class."""

    def __init__(self, block: CNNBlockBase):
        self.block = block

    def __call__(self, x: Tensor) -> Tensor:
        forward = type(self.block).forward
        if not (self.block.training and torch.is_grad_enabled()):
            return forward(self.block, x)
        return checkpoint(forward, self.block, x, use_reentrant=False, context_fn=self._contexts)

    def _contexts(self) -> tuple:
        return contextlib.nullcontext(), _without_statistics(self.block)


@contextlib.contextmanager
def _without_statistics(block: nn.Module) -> Iterator[None]:
    """Batch norms count a batch once, not again when it is computed again."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, _, count in kept:
        norm.momentum = 0.0
        norm.num_batches_tracked = count.clone()
    try:
        yield
    finally:
        for norm, momentum, count in kept:
            norm.momentum, norm.num_batches_tracked = momentum, count
