"""The evaluation of a model while it runs over a registered release, in one process or several."""

import logging
import os
from collections import OrderedDict
from collections.abc import Sequence

import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.utils import comm

from a2d_d2.data.release import read_annotation
from a2d_d2.evaluation.predictions import (
    FrameKey,
    instances_to_json,
    parse_entries,
    write_predictions,
)
from a2d_d2.evaluation.rasterize import ACTION_THRESHOLD, ACTOR_THRESHOLD
from a2d_d2.evaluation.scoring import FrameScore, score_frame, summarize
from a2d_d2.evaluation.tables import class_tables, paper_tables
from a2d_d2.label_space import LabelSpace
from a2d_d2.modeling.classes import with_actions
from a2d_d2.utils.files import write_json


class ActorActionEvaluator(DatasetEvaluator):
    """Segmentation and detection scores of a release, and the predictions they come from.

    Each frame is scored as it arrives, on the very entries that ``predictions.json`` gets, so the
    figures equal those of ``tools/evaluate.py`` on that file. :meth:`evaluate` gathers the frames
    of all processes; a frame that came twice counts once.

    Args:
        dataset_name: a registered release.
        output_dir: where ``predictions.json`` and ``metrics.json`` are written.
        actor_threshold, action_threshold: of :mod:`a2d_d2.evaluation.rasterize`.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str,
        *,
        actor_threshold: float = ACTOR_THRESHOLD,
        action_threshold: float = ACTION_THRESHOLD,
    ):
        self.label_space = MetadataCatalog.get(dataset_name).label_space
        self.output_dir = output_dir
        self.thresholds = {
            "actor_threshold": actor_threshold,
            "action_threshold": action_threshold,
        }
        self.reset()

    def reset(self) -> None:
        self._frames: dict[FrameKey, tuple[FrameScore, list[dict]]] = {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Scores the key frame of each clip.

        Args:
            inputs: clips of the mapper: ``video_id``, ``frame_index``, ``label_map_file``.
            outputs: one ``{"instances": Instances}`` per clip, in the frame's resolution.
        """
        for clip, output in zip(inputs, outputs, strict=True):
            key = (clip["video_id"], clip["frame_index"])
            if key in self._frames:
                continue
            entries = instances_to_json(output["instances"], *key, self.label_space)
            score = score_frame(
                read_annotation(clip["label_map_file"]),
                self.label_space,
                predictions=parse_entries(list(enumerate(entries)), self.label_space),
                **self.thresholds,
            )
            self._frames[key] = (score, entries)

    def evaluate(self) -> OrderedDict | None:
        """Writes the files and logs the tables.

        Returns:
            on the main process ``{"segmentation": {"actor/ave": ..., "joint/mIoU": ...},
            "detection": {"actor/mAP": ...}}`` in percent, else None.
        """
        gathered = comm.gather(self._frames)
        if not comm.is_main_process():
            return None
        frames = {}
        for part in gathered:
            frames.update(part)
        frames = [frames[key] for key in sorted(frames)]
        scores = summarize([score for score, _ in frames], self.label_space)
        write_predictions(
            os.path.join(self.output_dir, "predictions.json"),
            [entry for _, entries in frames for entry in entries],
        )
        write_json(os.path.join(self.output_dir, "metrics.json"), scores)
        logger = logging.getLogger(__name__)
        logger.info("Scores per class (percent)\n\n%s\n", class_tables(scores))
        logger.info("Scores (percent)\n\n%s\n", paper_tables(scores))
        return OrderedDict(
            (
                task,
                {
                    f"{level}/{metric}": value
                    for level, metrics in scores[task].items()
                    for metric, value in metrics.items()
                },
            )
            for task in ("segmentation", "detection")
        )


class DetectorEvaluators(DatasetEvaluators):
    """Evaluators of a detector that gives classes and no actions: they see both.

    Args:
        evaluators: that want actors with ``action_scores``.
        label_space: of the data set.
        classes: what the detector's classes stand for, see
            :func:`a2d_d2.modeling.classes.with_actions`.
    """

    def __init__(
        self, evaluators: Sequence[DatasetEvaluator], label_space: LabelSpace, classes: str
    ):
        super().__init__(evaluators)
        self.valid = torch.tensor(label_space.valid)
        self.classes = classes

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """As :meth:`ActorActionEvaluator.process`, for instances without ``action_scores``."""
        instances = [output["instances"].to("cpu") for output in outputs]
        outputs = [{"instances": with_actions(x, self.valid, self.classes)} for x in instances]
        super().process(inputs, outputs)
