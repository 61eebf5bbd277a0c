"""A step over several processes, or in several parts, is the step on the whole batch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.engine import create_ddp_model
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch import nn

from a2d_d2.config import setup_cfg
from a2d_d2.engine.measure import random_clip
from a2d_d2.engine.optimizer import build_optimizer
from a2d_d2.engine.trainer import ActorActionTrainer, MixedPrecisionTrainer

ROOT = Path(__file__).parents[2]
STEPS, CLIPS = 2, 2
OPTIONS = {
    "MODEL.DEVICE": "cpu",
    # Batch norm would see other batches.
    "MODEL.RESNETS.NORM": "FrozenBN",
    "MODEL.FPN.NORM": "",
    "MODEL.ROI_MASK_HEAD.NORM": "",
    "MODEL.FPN.OUT_CHANNELS": 8,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_ACTION_HEAD.FC_DIM": 16,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
    # All anchors and proposals are taken; foreground are the two true boxes of each clip alone.
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 4096,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 4,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 12,
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": "[0.999]",
    "SOLVER.OPTIMIZER": "SGD",
    "SOLVER.BASE_LR": 0.002,
}


def train(rank: int, world: int, accumulate: int) -> dict:
    """Two steps on the share of process ``rank`` of ``world`` in every batch of two clips.

    Regions are chosen without chance, and losses are means over as many regions in each clip: those
    of a batch are the means of its clips'.

    Returns:
        "losses" of each step, and the "weights" at the end.
    """
    options = [str(x) for pair in OPTIONS.items() for x in pair]
    cfg = setup_cfg("configs/synthetic/R18_FPN.yaml", options)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    share = CLIPS // world
    clips = [random_clip(cfg, 64, 64, seed) for seed in range(CLIPS * STEPS)]
    first = [CLIPS * step + share * rank for step in range(STEPS)]
    trainer = MixedPrecisionTrainer(
        create_ddp_model(model, device_ids=None, find_unused_parameters=True),
        [clips[i : i + share] for i in first],
        build_optimizer(cfg, model),
        max_grad_norm=cfg.SOLVER.MAX_GRAD_NORM,
        accumulate=accumulate,
    )
    losses = []
    with EventStorage(0) as storage:
        trainer.storage = storage
        for trainer.iter in range(STEPS):
            trainer.run_step()
            latest = {name: value for name, (value, _) in storage.latest().items()}
            losses.append({name: x for name, x in latest.items() if "loss" in name})
    return {"losses": losses, "weights": model.state_dict()}


@pytest.fixture(scope="module")
def whole():
    return train(0, 1, accumulate=1)


def assert_same(result, whole):
    assert len(result["losses"]) == STEPS
    for step, expected in zip(result["losses"], whole["losses"], strict=True):
        assert expected["loss_mask"] > 0 and expected["loss_action"] > 0
        assert step == pytest.approx(expected, rel=1e-4)
    for name, value in whole["weights"].items():
        torch.testing.assert_close(result["weights"][name], value, rtol=1e-4, atol=1e-6)


def test_parts_of_a_batch_give_its_losses_and_gradients(whole):
    assert_same(train(0, 1, accumulate=2), whole)


def test_two_processes_give_the_losses_of_one(whole, tmp_path):
    output = tmp_path / "result.pth"
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(tmp_path / "store"), str(output)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert_same(torch.load(output), whole)


class _Square(nn.Module):
    """Its loss is the mean of (w * x)^2 over the clips."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, clips):
        return {"loss_cls": (self.weight * torch.tensor(clips)).square().mean()}


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_the_mean_by_hand(accumulate):
    model = _Square()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    trainer = MixedPrecisionTrainer(model, [[1.0, 2.0, 3.0, 4.0]], optimizer, accumulate=accumulate)
    trainer.iter = 0
    with EventStorage(0) as storage:
        trainer.run_step()
        assert storage.latest()["total_loss"][0] == pytest.approx(7.5)  # (1 + 4 + 9 + 16) / 4
    assert model.weight.item() == pytest.approx(1 - 0.01 * 15)


@pytest.mark.parametrize("accumulate", ["3", "4"])
def test_parts_that_do_not_divide_the_batch_are_refused(tiny_options, accumulate):
    options = [*tiny_options, "SOLVER.ACCUMULATE", accumulate, "DATASETS.TEST", "()"]
    with pytest.raises(ValueError, match=rf"SOLVER.ACCUMULATE is {accumulate}; it must .* 2 over"):
        ActorActionTrainer(setup_cfg("configs/synthetic/R18_FPN.yaml", options))


if __name__ == "__main__":  # one of two processes: RANK STORE OUTPUT
    rank, store, output = sys.argv[1:]
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=int(rank), world_size=2
    )
    result = train(int(rank), 2, accumulate=1)
    if rank == "0":
        torch.save(result, output)
    torch.distributed.destroy_process_group()
