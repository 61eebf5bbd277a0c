"""Mixed precision, as the configuration asks for it."""

import contextlib

import torch
from detectron2.config import CfgNode

PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def precision(cfg: CfgNode) -> torch.dtype | None:
    """The type of the forward pass; None is float32.

    Raises:
        ValueError: there is no such SOLVER.AMP.PRECISION.
    """
    if not cfg.SOLVER.AMP.ENABLED:
        return None
    if cfg.SOLVER.AMP.PRECISION not in PRECISIONS:
        names = " or ".join(PRECISIONS)
        raise ValueError(f"SOLVER.AMP.PRECISION is {cfg.SOLVER.AMP.PRECISION!r}; use {names}")
    return PRECISIONS[cfg.SOLVER.AMP.PRECISION]


def autocast(device_type: str, dtype: torch.dtype | None) -> contextlib.AbstractContextManager:
    """torch.autocast, or nothing for None."""
    return contextlib.nullcontext() if dtype is None else torch.autocast(device_type, dtype)
