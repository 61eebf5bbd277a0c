"""tools/predict_video.py with a predictor that needs no model: it finds a dog that walks right.

Every process imports this file, so that those that Detectron2's launch starts have it, too. Each
frame takes ``A2D_D2_TEST_DELAY`` seconds.
"""

import importlib.util
import os
import time
from pathlib import Path

import torch
from detectron2.structures import Boxes, Instances

from a2d_d2.inference import predict_video
from a2d_d2.inference.types import FrameResult
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.cli import run_tool

A2D = LabelSpace.a2d()
DOG = A2D.actor_index("dog")


def dog(index, height, width, score=0.9):
    """One dog of 16 x 12 pixels, a pixel further right each frame; from frame 10 on it runs."""
    instances = Instances((height, width))
    instances.pred_boxes = Boxes(torch.tensor([[4.0 + index, 8, 20 + index, 20]]))
    instances.scores = torch.tensor([score])
    instances.pred_classes = torch.tensor([DOG])
    instances.action_scores = torch.zeros(1, A2D.num_actions)
    action = A2D.action_index("walking" if index < 10 else "running")
    instances.action_scores[0, action] = 0.5
    instances.pred_actions = torch.tensor([action])
    instances.pred_masks = torch.zeros(1, height, width, dtype=torch.bool)
    instances.pred_masks[0, 8:20, 4 + index : 20 + index] = True
    return instances


class WalkingDog:
    """What the package's StreamingPredictor offers to its caller."""

    def __init__(self, every=1, score=0.9, before=lambda index: None):
        self.every, self.score, self.before = every, score, before

    @classmethod
    def from_config(cls, cfg, *, batch_size, every, precision):
        return cls(every)

    def predict(self, frames):
        for index, (seconds, frame) in enumerate(frames):
            self.before(index)
            time.sleep(float(os.environ.get("A2D_D2_TEST_DELAY", 0)))
            found = index % self.every == 0
            instances = dog(index, *frame.shape[:2], self.score) if found else None
            yield FrameResult(index, seconds, frame, None, instances)


def load_tool():
    path = Path(__file__).parents[2] / "tools/predict_video.py"
    spec = importlib.util.spec_from_file_location("predict_video_tool", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


if __name__ in ("__main__", "__mp_main__"):
    predict_video.StreamingPredictor = WalkingDog
if __name__ == "__main__":
    run_tool(load_tool().main)
