"""Optimisers and the optimisation step."""

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from a2d_d2.config import setup_cfg
from a2d_d2.engine.optimizer import build_optimizer
from a2d_d2.engine.trainer import MixedPrecisionTrainer


@pytest.mark.parametrize(("name", "kind"), [("SGD", torch.optim.SGD), ("ADAMW", torch.optim.AdamW)])
def test_only_parameters_that_learn_are_optimised(name, kind):
    cfg = setup_cfg("", ["SOLVER.OPTIMIZER", name, "SOLVER.BASE_LR", "0.5"])
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model[0].requires_grad_(False)
    optimizer = build_optimizer(cfg, model)
    assert isinstance(optimizer, kind)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in model[1].parameters()}
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}


@pytest.mark.parametrize(("name", "kind"), [("SGD", torch.optim.SGD), ("ADAMW", torch.optim.AdamW)])
def test_the_fused_update_is_the_plain_one(name, kind):
    options = ["SOLVER.OPTIMIZER", name, "SOLVER.BASE_LR", "0.1", "SOLVER.WEIGHT_DECAY", "0.01"]
    layers = [nn.Linear(3, 2), nn.Linear(3, 2)]
    layers[1].load_state_dict(layers[0].state_dict())
    momentum = {"momentum": 0.9} if name == "SGD" else {}
    optimizers = [
        build_optimizer(setup_cfg("", options), layers[0]),
        kind(layers[1].parameters(), lr=0.1, weight_decay=0.01, foreach=False, **momentum),
    ]
    for _ in range(3):
        for layer, optimizer in zip(layers, optimizers, strict=True):
            optimizer.zero_grad()
            layer(torch.tensor([[1.0, -2.0, 3.0]])).square().sum().backward()
            optimizer.step()
    for x, y in zip(*(layer.parameters() for layer in layers), strict=True):
        torch.testing.assert_close(x, y)


def test_an_unknown_optimiser_is_named():
    with pytest.raises(
        ValueError, match=r"SOLVER\.OPTIMIZER is 'ADAGRAD'; it must be one of ADAMW, SGD"
    ):
        build_optimizer(setup_cfg("", ["SOLVER.OPTIMIZER", "ADAGRAD"]), nn.Linear(1, 1))


class _Model(nn.Module):
    """Its loss is the sum of w * x, so that the gradient of w is x."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1, bias=False)
        self.dtype = None

    def forward(self, x):
        y = self.layer(x)
        self.dtype = y.dtype
        return {"loss_cls": y.float().sum()}


def _step(**settings):
    model = _Model()
    before = model.layer.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    trainer = MixedPrecisionTrainer(model, [torch.tensor([[3.0, 4.0]])], optimizer, **settings)
    trainer.iter = 0
    with EventStorage(0):
        trainer.run_step()
    return model, (before - model.layer.weight.detach()).flatten().tolist()


def test_the_step_without_clipping_is_the_gradient():
    _, change = _step()
    assert change == pytest.approx([3, 4], rel=1e-5)


def test_the_norm_over_all_parameters_is_clipped():
    _, change = _step(max_grad_norm=1.0)  # |(3, 4)| = 5
    assert change == pytest.approx([0.6, 0.8], rel=1e-4)


def test_a_small_gradient_is_not_stretched():
    _, change = _step(max_grad_norm=10.0)
    assert change == pytest.approx([3, 4], rel=1e-5)


def test_bfloat16_computes_the_forward_pass_alone():
    model, change = _step(precision=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert model.layer.weight.dtype == torch.float32
    assert change == pytest.approx([3, 4], rel=1e-2)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change():
    model = _Model()
    before = model.layer.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    trainer = MixedPrecisionTrainer(model, [torch.tensor([[torch.nan, 1.0]])], optimizer)
    trainer.iter = 0
    with EventStorage(0), pytest.raises(FloatingPointError, match="iteration=0"):
        trainer.run_step()
    assert torch.equal(model.layer.weight, before)
