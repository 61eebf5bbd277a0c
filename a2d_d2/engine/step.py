"""What a training step and its replay share: the batch in parts, and the losses of a part."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn


def parts_of(clips: Sequence[dict], count: int) -> Iterator[Sequence[dict]]:
    """A batch in ``count`` parts of equal size (SOLVER.ACCUMULATE)."""
    assert len(clips) % count == 0, (len(clips), count)
    size = len(clips) // count
    for start in range(0, len(clips), size):
        yield clips[start : start + size]


def training_losses(model: nn.Module, clips: Sequence[dict]) -> dict[str, Tensor]:
    """The losses of clips; ``{"proposals": nan}`` where Detectron2 ends the forward pass.

    Its RPN does that when what it predicts is not finite.
    """
    try:
        return model(clips)
    except FloatingPointError:
        return {"proposals": torch.tensor(math.nan)}


def add_mean(means: dict[str, Tensor], losses: Mapping[str, Tensor], count: int) -> None:
    """Adds the losses of one of ``count`` parts to the means over all of them, in place."""
    for name, loss in losses.items():
        means[name] = means.get(name, 0.0) + loss.detach() / count
