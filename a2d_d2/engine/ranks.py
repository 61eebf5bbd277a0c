"""What the processes of a training share."""

import torch
from detectron2.utils import comm
from torch import distributed, nn


def any_process(flag: bool) -> bool:
    """Whether ``flag`` is set in any process; all of them call this and get the same answer."""
    if comm.get_world_size() == 1:
        return flag
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    number = torch.tensor(int(flag), device=device)
    distributed.all_reduce(number, distributed.ReduceOp.MAX)
    return bool(number)


def share_buffers(model: nn.Module) -> None:
    """Gives every process the first one's buffers: each counts its own running statistics."""
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)


def without_ddp(model: nn.Module) -> nn.Module:
    """The model itself, which DistributedDataParallel may wrap."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
