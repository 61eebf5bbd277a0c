"""The evaluation protocols, by the word that chooses one. Their figures are not comparable."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from a2d_d2.evaluation import coco, med_vt, scoring, tables
from a2d_d2.evaluation.predictions import FrameKey
from a2d_d2.label_space import LabelSpace


@dataclass(frozen=True)
class Protocol:
    """What makes a protocol.

    Attributes:
        score_frame: of an annotation and a label space; takes the keyword ``predictions`` and, if
            the protocol scores label maps, ``label_map`` and the thresholds of
            :mod:`a2d_d2.evaluation.rasterize`. Runs in worker processes.
        summarize: the scores of the frames by key, ascending, and a label space; takes the keyword
            ``progress``.
        tables: the text of the scores.
        label_maps: whether label maps can be scored; else predictions are needed.
        maskless: what becomes of predictions without a segmentation, for a warning.
    """

    score_frame: Callable[..., Any]
    summarize: Callable[..., dict]
    tables: Callable[[dict], str]
    label_maps: bool
    maskless: str


def _summarize_official(
    frames: Mapping[FrameKey, scoring.FrameScore], label_space: LabelSpace, *, progress: bool
) -> dict:
    return scoring.summarize(frames.values(), label_space)


def _summarize_med_vt(
    frames: Mapping[FrameKey, scoring.PixelCounts], label_space: LabelSpace, *, progress: bool
) -> dict:
    return med_vt.summarize(frames, label_space)


PROTOCOLS = {
    "official": Protocol(
        scoring.score_frame,
        _summarize_official,
        tables.official_tables,
        label_maps=True,
        maskless="are not painted",
    ),
    "med-vt": Protocol(
        scoring.count_pixels,
        _summarize_med_vt,
        tables.med_vt_tables,
        label_maps=True,
        maskless="are not painted",
    ),
    "coco": Protocol(
        coco.frame_instances,
        coco.summarize,
        tables.coco_tables,
        label_maps=False,
        maskless="count as boxes alone",
    ),
}


def get_protocol(word: str) -> Protocol:
    """The protocol of a word.

    Raises:
        ValueError: there is none; lists the words.
    """
    if word not in PROTOCOLS:
        raise ValueError(f"there is no protocol {word!r}; choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[word]
