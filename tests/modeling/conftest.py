"""Hand-made clips for the model's tests."""

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

SIZE = 64


@pytest.fixture
def make_clip():
    """make_clip(frames, keys, ...): a clip as ClipDatasetMapper gives it, of random pixels.

    ``boxes`` are the instances of every key frame, (x1, y1, x2, y2, actor, action).
    """

    def make(
        frames=3,
        keys=(1,),
        boxes=((10, 12, 40, 50, 6, 6),),
        *,
        radius=1,
        height=SIZE,
        width=SIZE,
        seed=0,
    ):
        generator = torch.Generator().manual_seed(seed)
        flow = torch.randn(frames, 2, height, width, generator=generator)
        steps = torch.arange(-radius, radius + 1)
        neighbours = torch.tensor(keys)[:, None] + steps
        neighbours[(neighbours < 0) | (neighbours >= frames)] = -1
        instances = []
        for _ in keys:
            masks = np.zeros((len(boxes), height, width), dtype=bool)
            for mask, (x1, y1, x2, y2, _, _) in zip(masks, boxes, strict=True):
                mask[y1:y2, x1:x2] = True
            values = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 6)
            truth = Instances((height, width))
            truth.gt_boxes = Boxes(values[:, :4])
            truth.gt_classes = values[:, 4].long()
            truth.gt_actions = values[:, 5].long()
            truth.gt_masks = BitMasks(torch.from_numpy(masks))
            instances.append(truth)
        return {
            "image": torch.randint(
                0, 256, (frames, 3, height, width), dtype=torch.uint8, generator=generator
            ),
            "flow": torch.cat([flow, flow.norm(dim=1, keepdim=True)], dim=1),
            "key_positions": list(keys),
            "neighbours": neighbours,
            "instances": instances,
            "height": height,
            "width": width,
        }

    return make


@pytest.fixture
def losses_of():
    """losses_of(model, clips): the training losses, with sampling that is the same every time."""

    def run(model, clips, seed=0):
        torch.manual_seed(seed)
        with EventStorage():
            return model.train()(clips)

    return run
