"""Optimisers: the paper's SGD, and AdamW for training from scratch."""

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import get_default_optimizer_params


def build_optimizer(cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Builds ``SOLVER.OPTIMIZER`` over the parameters of ``model`` that require a gradient.

    Learning rate, momentum (SGD), weight decay and their special cases for norms and biases are
    Detectron2's SOLVER keys. The gradient is clipped by the trainer (``SOLVER.MAX_GRAD_NORM``).

    Raises:
        ValueError: an unknown name in SOLVER.OPTIMIZER, or SOLVER.CLIP_GRADIENTS is on.
    """
    if cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
        raise ValueError("SOLVER.CLIP_GRADIENTS is not read here; set SOLVER.MAX_GRAD_NORM")
    params = get_default_optimizer_params(
        model,
        base_lr=cfg.SOLVER.BASE_LR,
        weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
        bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
        weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
    )
    settings = {"lr": cfg.SOLVER.BASE_LR, "weight_decay": cfg.SOLVER.WEIGHT_DECAY}
    if cfg.SOLVER.OPTIMIZER == "SGD":
        momentum = cfg.SOLVER.MOMENTUM
        return torch.optim.SGD(
            params, momentum=momentum, nesterov=cfg.SOLVER.NESTEROV, fused=True, **settings
        )
    if cfg.SOLVER.OPTIMIZER == "ADAMW":
        return torch.optim.AdamW(params, fused=True, **settings)
    raise ValueError(f"SOLVER.OPTIMIZER is {cfg.SOLVER.OPTIMIZER!r}; use SGD or ADAMW")
