"""The loaders of training and testing, over Detectron2's own."""

import difflib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Sequence

from detectron2.config import CfgNode
from detectron2.data import (
    DatasetCatalog,
    DatasetFromList,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.build import worker_init_reset_seed
from detectron2.utils import comm
from detectron2.utils.logger import log_first_n
from torch.utils.data import DataLoader, Dataset

from a2d_d2.data.mapper import build_mapper
from a2d_d2.data.stream import ResumableBatches, SeededDraws
from a2d_d2.data.video import VideoError
from a2d_d2.modeling.system import takes_clips
from a2d_d2.utils.parallel import end_with_parent


def build_train_loader(cfg: CfgNode) -> DataLoader:
    """An endless loader of batches from DATASETS.TRAIN, of what :func:`build_mapper` gives.

    With a SEED its batches depend on the step alone; :func:`start_at` leaves the first ones out.
    """
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    records = train_records(cfg)
    clips = ReadableClips(records, build_mapper(cfg, is_train=True))
    loader = build_detection_train_loader(
        cfg,
        mapper=_as_it_is,
        dataset=SeededDraws(clips, seed),
        aspect_ratio_grouping=False,  # done by the sampler, which can leave whole batches out
    )
    grouping = cfg.DATALOADER.ASPECT_RATIO_GROUPING
    groups = [int(grouping and record["width"] > record["height"]) for record in records]
    loader.dataset.sampler = ResumableBatches(loader.dataset.sampler, groups, loader.batch_size)
    loader.worker_init_fn = _start_worker
    return loader


def _start_worker(worker: int) -> None:
    """Begins a loader's process, which ends when the trainer says so, or is gone."""
    # A scheduler sends SIGTERM to the whole group; the trainer still needs its data.
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        parent = multiprocessing.parent_process().pid  # not getppid's: a fork server may be there
        threading.Thread(target=_end_when_told, args=(parent,), daemon=True).start()
    end_with_parent()
    worker_init_reset_seed(worker)


def _end_when_told(parent: int) -> None:
    """Waits for a SIGTERM of the parent, which ends its processes so when it ends itself."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)  # as torch's own handler does


def start_at(loader: DataLoader, step: int) -> None:
    """Makes the next iteration of a loader of :func:`build_train_loader` begin at ``step``."""
    loader.dataset.sampler.start = step


def check_registered(key: str, names: Iterable[str]) -> None:
    """ValueError when a name of DATASETS.TRAIN or TEST (``key``) stands for no release."""
    for name in names:
        reason = None
        if name not in DatasetCatalog:
            reason = "is not registered"
        elif not hasattr(MetadataCatalog.get(name), "label_space"):  # Detectron2's own
            reason = "is no release with actors and actions"
        if reason:
            own = ("a2d_train", "a2d_val", "a2d_test")
            (nearest,) = difflib.get_close_matches(str(name), own, n=1, cutoff=0)
            raise ValueError(
                f"{key} names {name!r}, which {reason}; use a2d_train, a2d_val or "
                f"a2d_test (the nearest is {nearest}), whose files DATASETS.ROOT names: "
                "datasets/README.md says how to get A2D, tools/make_synthetic_a2d.py generates a "
                "release; or register it (a2d_d2.data.registration.register_release)"
            )


def build_test_loader(cfg: CfgNode, dataset_name: str) -> Iterable[list[dict]]:
    """A loader of every annotated frame of a data set, TEST.IMS_PER_BATCH at once.

    Frames without annotations come too: an evaluation counts them.
    """
    check_registered("DATASETS.TEST", [dataset_name])
    mapper = build_mapper(cfg, is_train=False)
    batch_size = cfg.TEST.IMS_PER_BATCH
    loader = build_detection_test_loader(cfg, dataset_name, mapper=mapper, batch_size=batch_size)
    loader.worker_init_fn = _start_worker
    return loader


class ReadableClips(Dataset):
    """The clips of records; in place of one that cannot be read comes the next that can.

    A video that is broken or ends too soon is named once, in a warning: training goes on without
    it. (Detectron2's MapDataset would draw another record, but fails to from Python 3.11 on.)

    Args:
        records: of annotated frames.
        mapper: record to clip; raises VideoError where the video is at fault.
    """

    def __init__(self, records: Sequence[dict], mapper: Callable[[dict], dict]):
        self.records = DatasetFromList(records, copy=False)  # stored compactly
        self.mapper = mapper

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict:
        """Raises ValueError when no clip at all can be read."""
        reason = ""
        for step in range(len(self)):
            try:
                return self.mapper(self.records[(index + step) % len(self)])
            except VideoError as error:
                reason = reason or str(error)
                log_first_n(
                    logging.WARNING, f"left out of training: {error}", name=__name__, key="message"
                )
        raise ValueError(f"there is no clip to train on: {reason}, nor can any other be read")


def _as_it_is(clip: dict) -> dict:
    return clip


def train_records(cfg: CfgNode) -> list[dict]:
    """The records of DATASETS.TRAIN as the training mapper wants them.

    Those without annotations are dropped when DATALOADER.FILTER_EMPTY_ANNOTATIONS, those without a
    clip always, with one warning.

    Raises:
        ValueError: no clip is there.
    """
    if not cfg.DATASETS.TRAIN:
        raise ValueError("DATASETS.TRAIN is empty; name a data set to train on, such as a2d_train")
    check_registered("DATASETS.TRAIN", cfg.DATASETS.TRAIN)
    records = get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    )
    clips = sorted({record["file_name"] for record in records})
    missing = {clip for clip in clips if not os.path.exists(clip)}
    if missing:
        example = min(missing)
        if len(missing) == len(clips):
            raise ValueError(f"there is no clip to train on: {example} does not exist, nor others")
        logging.getLogger(__name__).warning(
            f"{len(missing)} of {len(clips)} training clips do not exist and are left out "
            f"({example}, ...); tools/check_dataset.py lists them"
        )
        records = [record for record in records if record["file_name"] not in missing]
    if not takes_clips(cfg):
        return records
    return with_window_annotations(records, cfg.INPUT.CLIP.LENGTH, cfg.INPUT.CLIP.STRIDE)


def with_window_annotations(records: Sequence[dict], length: int, stride: int) -> list[dict]:
    """Copies of the records that also hold the annotations of their neighbours in time.

    "window_annotations" maps the frame index of each other record of the same clip that a window of
    ``length`` frames and ``stride`` can hold to its annotations. Records stay whole in themselves,
    so that the loader's processes need no table of all annotations.
    """
    annotations = {(r["file_name"], r["frame_index"]): r["annotations"] for r in records}
    reach = (length - 1) * stride
    result = []
    for record in records:
        clip, frame = record["file_name"], record["frame_index"]
        nearby = {
            other: annotations[clip, other]
            for other in record["annotated_frames"]
            if 0 < abs(other - frame) <= reach and (clip, other) in annotations
        }
        result.append(record | {"window_annotations": nearby})
    return result
