"""Activation checkpointing of the backbones."""

import copy

import pytest
import torch
from torch import nn

from a2d_d2.benchmark.common import kept_bytes
from a2d_d2.modeling.recompute import recompute_stages

RECOMPUTE = ("MODEL.BACKBONE.RECOMPUTE", True)


@pytest.mark.parametrize("options", [(), ("MODEL.BACKBONE.FREEZE_AT", 2)])
def test_losses_gradients_and_statistics_are_the_same_for_less_memory(
    small_model, make_clip, losses_of, options
):
    plain, saving = small_model(*options), small_model(*options, *RECOMPUTE)
    assert plain.state_dict().keys() == saving.state_dict().keys()
    clips = [make_clip(), make_clip(seed=1)]
    losses, same = {}, {}
    plain_bytes = kept_bytes(lambda: losses.update(losses_of(plain, clips)), plain)
    saving_bytes = kept_bytes(lambda: same.update(losses_of(saving, clips)), saving)
    assert losses == same
    assert saving_bytes < 0.7 * plain_bytes
    sum(losses.values()).backward()
    sum(same.values()).backward()
    for (name, x), y in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert (x.grad is None) == (y.grad is None) == (not x.requires_grad), name
        if x.grad is not None:
            torch.testing.assert_close(x.grad, y.grad, msg=name)
    for (name, x), y in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(x, y), name  # of batch norm: each batch counts once


def test_a_copy_has_its_own_stages(small_model):
    model = small_model(*RECOMPUTE)
    stage = copy.deepcopy(model).backbone.bottom_up.res2
    assert stage.forward.stage is stage


def test_evaluation_is_not_touched(small_model, make_clip):
    outputs = [m.eval()([make_clip()])[0] for m in (small_model(), small_model(*RECOMPUTE))]
    first, second = (output["instances"].scores for output in outputs)
    assert len(first) and torch.equal(first, second)


def test_other_backbones_are_refused():
    with pytest.raises(ValueError, match=r"RECOMPUTE is True, but Linear has no stages"):
        recompute_stages(nn.Linear(1, 1))
