"""The loaders of training and testing, over Detectron2's own."""

import logging
import os
from collections.abc import Iterable, Sequence

from detectron2.config import CfgNode
from detectron2.data import (
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)

from a2d_d2.data.mapper import ClipDatasetMapper


def build_train_loader(cfg: CfgNode) -> Iterable[list[dict]]:
    """An endless loader of batches of clips from DATASETS.TRAIN, see :class:`ClipDatasetMapper`."""
    mapper = ClipDatasetMapper(cfg, is_train=True)
    return build_detection_train_loader(cfg, mapper=mapper, dataset=train_records(cfg))


def build_test_loader(cfg: CfgNode, dataset_name: str) -> Iterable[list[dict]]:
    """A loader of every annotated frame of a data set, one clip a batch.

    Frames without annotations come too: an evaluation counts them.
    """
    mapper = ClipDatasetMapper(cfg, is_train=False)
    return build_detection_test_loader(cfg, dataset_name, mapper=mapper)


def train_records(cfg: CfgNode) -> list[dict]:
    """The records of DATASETS.TRAIN as the training mapper wants them.

    Those without annotations are dropped when DATALOADER.FILTER_EMPTY_ANNOTATIONS, those without a
    clip always, with one warning.

    Raises:
        ValueError: no clip is there.
    """
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
