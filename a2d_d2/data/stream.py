"""The stream of training batches as a function of the step alone.

Which records form the batch of a step, and what augmentation draws for them, follow from the seed
and the step, whatever the number of loader processes. So a training that was stopped and resumed
sees exactly what it would have seen.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch.utils.data import Dataset, Sampler


def derived_seed(*numbers: int) -> int:
    """A seed of 32 bits that depends on every one of ``numbers`` (not negative)."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class SeededDraws(Dataset):
    """Clips without end: element i is ``clips[i % len(clips)]``, drawn after seeding by i.

    The generators of the process stay as drawing the clip leaves them. Iterating gives the records
    once, which Detectron2's samplers by category look at.

    Args:
        clips: what draws from the generators when it is indexed; has ``records``.
        seed: of the training.
    """

    def __init__(self, clips: Dataset, seed: int):
        self.clips = clips
        self.seeds = (seed, comm.get_rank())

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict:
        seed_all_rng(derived_seed(*self.seeds, index))
        return self.clips[index % len(self.clips)]

    def __iter__(self) -> Iterator[dict]:
        return iter(self.clips.records)


class ResumableBatches(Sampler):
    """The indices of an endless sampler in whole batches, from the batch ``start`` on.

    Records of one batch are of one group; the order within each group is the sampler's. The indices
    are those of :class:`SeededDraws`: each occurs once.

    Args:
        sampler: of Detectron2, endless, giving indices of records.
        groups: of each record.
        batch_size: of one process.

    Attributes:
        start: number of batches to leave out, read when an iteration begins.
    """

    def __init__(self, sampler: Sampler, groups: Sequence[int], batch_size: int):
        self.sampler = sampler
        self.groups = groups
        self.batch_size = batch_size
        self.start = 0

    def __iter__(self) -> Iterator[int]:
        waiting: dict[int, list[int]] = {}
        left_out = 0
        for place, index in enumerate(self.sampler):
            batch = waiting.setdefault(self.groups[index], [])
            batch.append(index + place * len(self.groups))
            if len(batch) == self.batch_size:
                if left_out < self.start:
                    left_out += 1
                else:
                    yield from batch
                batch.clear()
