"""Qualitative frames of an evaluation: drawn from what the network has just computed."""

import logging
import os

import cv2
import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils.events import get_event_storage, has_event_storage

from a2d_d2.data.flow import resize_flow
from a2d_d2.data.release import read_annotation
from a2d_d2.visualization.canvas import write_picture
from a2d_d2.visualization.instances import truth_instances
from a2d_d2.visualization.panels import qualitative_panel


class QualitativeFrames(DatasetEvaluator):
    """Draws some frames of a data set beside their truth while it is evaluated.

    It stands beside the scoring evaluator, so that no frame is computed twice for a picture. The
    pictures are files in ``folder`` and, during training, images in TensorBoard.

    Args:
        dataset_name: a registered release.
        folder: where ``<video>_<frame>.png`` is written.
        count: number of frames, evenly spaced over the data set.
        actor_threshold, action_threshold: predictions below either are not drawn.
    """

    def __init__(
        self,
        dataset_name: str,
        folder: str,
        count: int,
        *,
        actor_threshold: float,
        action_threshold: float,
    ):
        records = DatasetCatalog.get(dataset_name)
        chosen = np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int)
        self.image_ids = {records[i]["image_id"] for i in chosen}
        self.label_space = MetadataCatalog.get(dataset_name).label_space
        self.folder = folder
        self.thresholds = {"actor_threshold": actor_threshold, "action_threshold": action_threshold}

    def reset(self) -> None:
        pass

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Draws those of the clips that were chosen."""
        for clip, output in zip(inputs, outputs, strict=True):
            if clip["image_id"] in self.image_ids:
                self._draw(clip, output["instances"].to("cpu"))

    def evaluate(self) -> None:
        logging.getLogger(__name__).info("Qualitative frames are in %s", self.folder)

    def _draw(self, clip: dict, prediction) -> None:
        size = (clip["width"], clip["height"])
        image = clip["image"]
        if "key_positions" in clip:  # a clip; else a single frame
            (key,) = clip["key_positions"]
            image = image[key]
        frame = cv2.resize(image.permute(1, 2, 0).numpy(), size)
        flow = None
        if "flow" in clip:
            flow = resize_flow(clip["flow"][key, :2].permute(1, 2, 0).numpy(), size)
        truth = truth_instances(read_annotation(clip["label_map_file"]), self.label_space)
        picture = qualitative_panel(
            frame,
            flow,
            truth,
            prediction,
            self.label_space,
            title=clip["image_id"],
            **self.thresholds,
        )
        name = f"{clip['video_id']}_{clip['frame_index'] + 1:05d}"
        write_picture(os.path.join(self.folder, name + ".png"), picture)
        if has_event_storage():
            get_event_storage().put_image(f"frames/{name}", picture.transpose(2, 0, 1))
