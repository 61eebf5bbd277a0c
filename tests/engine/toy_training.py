"""A model of two layers in the trainer's step; run as a program, in two processes.

``python toy_training.py FOLDER``: process 1 has no finite loss in steps 1 and 2, process 0 gets
SIGTERM in step 3. FOLDER/<rank>.json says what each of them saw.
"""

import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import torch
from detectron2.engine import create_ddp_model
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from a2d_d2.engine.non_finite import NonFiniteSteps
from a2d_d2.engine.ranks import share_buffers
from a2d_d2.engine.stop import Stopped, StopRequest
from a2d_d2.engine.trainer import MixedPrecisionTrainer


class Toy(nn.Module):
    """Clips hold "x"; a weight of the loss may make it, or its gradient alone, not finite."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 3)
        self.norm = nn.BatchNorm1d(3)
        self.device = torch.device("cpu")

    def forward(self, clips):
        if clips[0].get("diverged"):
            raise FloatingPointError("as Detectron2's RPN does")
        x = torch.stack([clip["x"] for clip in clips])
        y = self.norm(self.linear(x))
        root = (y - y.detach()).abs().sum()  # 0: its square root has no finite derivative
        return {
            "loss_square": y.square().mean() + y.mean(),
            "loss_root": root.sqrt() if clips[0].get("root") else root,
        }


def make_trainer(model, batches, folder, *, max_skipped=0, config=""):
    return MixedPrecisionTrainer(
        model,
        batches,
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        max_grad_norm=1.0,
        seed=1,
        non_finite=NonFiniteSteps(folder, config, max_skipped),
    )


def batch(value=1.0, **more):
    generator = torch.Generator().manual_seed(3)
    return [{"x": torch.randn(2, generator=generator) * value, **more} for _ in range(4)]


def step(trainer, number):
    trainer.iter = number
    with EventStorage(number):
        trainer.run_step()


def _run(rank, folder):
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", store, rank=rank, world_size=2)
    comm.create_local_process_group(2)
    torch.manual_seed(0)
    model = create_ddp_model(Toy(), broadcast_buffers=False, device_ids=None)
    bad = float("nan") if rank == 1 else 1.0
    batches = [batch(1.0 + rank), batch(bad), batch(diverged=rank == 1), batch(2.0 + rank)]
    trainer = make_trainer(model, batches, folder / "non_finite", max_skipped=2)
    seen = {"weights": [], "mean": []}
    with StopRequest() as stop:
        try:
            for number in range(4):
                step(trainer, number)
                seen["weights"].append(model.module.linear.weight.tolist())
                seen["mean"].append(model.module.norm.running_mean.tolist())
                if (rank, number) == (0, 3):
                    os.kill(os.getpid(), signal.SIGTERM)
                stop.check()
        except Stopped as error:
            seen["stopped"], seen["code"] = number, error.code
    seen["skipped"] = trainer.non_finite.skipped
    share_buffers(model)
    seen["shared"] = model.module.norm.running_mean.tolist()
    (folder / f"{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    start = multiprocessing.get_context("fork").Process
    both = [start(target=_run, args=(rank, Path(sys.argv[1]))) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    sys.exit(any(process.exitcode for process in both))
