"""The stream of training batches: the same from any step on, whatever the loader's processes."""

import itertools
import subprocess

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Sampler

from a2d_d2.config import setup_cfg
from a2d_d2.data.build import build_train_loader, start_at
from a2d_d2.data.stream import ResumableBatches, SeededDraws, derived_seed


class _Given(Sampler):
    """An endless sampler that repeats an order."""

    def __init__(self, order):
        self.order = order

    def __iter__(self):
        return itertools.cycle(self.order)


def _batches(sampler, count, size):
    indices = itertools.islice(iter(sampler), count * size)
    return [list(itertools.islice(indices, size)) for _ in range(count)]


def test_batches_are_of_one_group_and_can_be_left_out():
    # Records 0 and 2 are wide. Places 0..7 of the stream hold the records 0 1 2 3 0 1 2 3.
    sampler = ResumableBatches(_Given([0, 1, 2, 3]), groups=[1, 0, 1, 0], batch_size=2)
    first = [[0 + 0 * 4, 2 + 2 * 4], [1 + 1 * 4, 3 + 3 * 4], [0 + 4 * 4, 2 + 6 * 4]]
    assert _batches(sampler, 3, 2) == first
    sampler.start = 2
    assert _batches(sampler, 1, 2) == first[2:]


def test_a_batch_that_waits_is_not_lost_when_batches_are_left_out():
    # One tall record among wide ones: its batch is full only in the third round.
    def stream():
        return ResumableBatches(_Given([0, 1, 2]), groups=[1, 0, 1], batch_size=3)

    whole = _batches(stream(), 6, 3)
    resumed = stream()
    resumed.start = 3
    assert _batches(resumed, 3, 3) == whole[3:]
    assert any(index % 3 == 1 for batch in whole for index in batch)


class _Draws(Dataset):
    """Clips of two records: the record's name and something drawn."""

    records = ({"name": "a"}, {"name": "b"})

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.records[index]["name"], np.random.random()  # noqa: NPY002


def test_every_draw_is_of_its_index():
    draws = SeededDraws(_Draws(), seed=3)
    assert draws[1] == draws[1]
    assert draws[5][0] == draws[1][0] == "b"
    assert draws[5] != draws[1] != SeededDraws(_Draws(), seed=4)[1]
    assert [record["name"] for record in draws] == ["a", "b"]


def test_seeds_depend_on_every_number():
    seeds = {derived_seed(*numbers) for numbers in itertools.product(range(3), repeat=3)}
    assert len(seeds) == 27
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.fixture
def one_thread():
    """DIS flow depends on the number of threads, of which a loader's process has one."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    yield
    cv2.setNumThreads(before)


def test_a_loader_goes_on_where_another_stopped(tiny_release, one_thread):
    whole = list(itertools.islice(iter(_loader(tiny_release, 0)), 5))
    resumed = _loader(tiny_release, 1)
    start_at(resumed, 3)
    for batch, again in zip(whole[3:], resumed, strict=False):
        for clip, other in zip(batch, again, strict=True):
            assert clip["image_id"] == other["image_id"]
            assert torch.equal(clip["image"], other["image"])
            assert torch.equal(clip["flow"], other["flow"])
    sizes = {tuple(clip["image"].shape) for batch in whole for clip in batch}
    assert len(sizes) > 1  # something was drawn


def test_a_loaders_process_outlives_sigterm(tiny_release):
    """A scheduler sends it to all processes; the trainer still needs data for its last step."""
    batches = iter(_loader(tiny_release, 1))
    next(batches)
    (process,) = batches._workers
    subprocess.run(["kill", "-TERM", str(process.pid)], check=True)  # of somebody else
    for _ in range(6):  # more than are loaded ahead
        assert len(next(batches)) == 2
    assert process.is_alive()


def _loader(root, workers):
    options = {
        "DATASETS.ROOT": str(root),
        "DATASETS.TRAIN": ("a2d_train",),
        "INPUT.MIN_SIZE_TRAIN": (48, 56, 64),
        "INPUT.COLOR_JITTER": 0.3,
        "SOLVER.IMS_PER_BATCH": 2,
        "DATALOADER.NUM_WORKERS": workers,
        "SEED": 4,
    }
    np.random.seed(4)  # noqa: NPY002 as Detectron2's default_setup does
    return build_train_loader(setup_cfg("", [x for item in options.items() for x in item]))
