"""A clip flipped gives flipped output, for a model whose weights are symmetric.

A ResNet has no such weights: of an even number of pixels, its padded convolutions of stride 2 see
one more on the left than on the right. So the backbone here halves by patches (kernel as wide as
the stride). Everything behind the backbones is the model's own. For flow, a flip also negates x.
"""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import nn

WIDTH = 64
LEVELS = {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}  # strides


class PatchPyramid(Backbone):
    def __init__(self, cfg, input_shape):
        super().__init__()
        channels = cfg.MODEL.FPN.OUT_CHANNELS
        inputs = [input_shape.channels] + [channels] * (len(LEVELS) - 1)
        halve = [4, 2, 2, 2, 2]
        self.halve = nn.ModuleList(
            nn.Conv2d(c, channels, kernel_size=k, stride=k)
            for c, k in zip(inputs, halve, strict=True)
        )
        self.look = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in LEVELS)
        self._out_features = list(LEVELS)
        self._out_feature_strides = LEVELS
        self._out_feature_channels = dict.fromkeys(LEVELS, channels)

    def forward(self, x):
        result = {}
        for level, halve, look in zip(LEVELS, self.halve, self.look, strict=True):
            x = halve(x).relu()
            result[level] = look(x)
        return result

    def output_shape(self):
        return {
            level: ShapeSpec(channels=self._out_feature_channels[level], stride=stride)
            for level, stride in LEVELS.items()
        }


@pytest.fixture
def symmetric_model(small_model):
    BACKBONE_REGISTRY._do_register("PatchPyramid", PatchPyramid)
    try:
        model = small_model(
            *("MODEL.BACKBONE.NAME", "PatchPyramid", "MODEL.TEMPORAL.NUM_LAYERS", 1),
            *("MODEL.ANCHOR_GENERATOR.OFFSET", 0.5),  # anchors in the middle of their cells
        )
    finally:
        BACKBONE_REGISTRY._obj_map.pop("PatchPyramid")
    heads, rpn_head = model.roi_heads, model.proposal_generator.rpn_head
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                weight = module.weight
                weight.copy_((weight + weight.flip(-1)) / 2)
        # Flow to the right becomes flow to the left: an odd kernel for x.
        stem = model.flow_backbone.halve[0].weight
        nn.init.normal_(stem, std=0.2)
        stem[:, 0] = stem[:, 0] - stem[:, 0].flip(-1)
        stem[:, 1:] = stem[:, 1:] + stem[:, 1:].flip(-1)
        for layer in (heads.box_head.fc1, heads.action_head.layers.fc1):
            weight = layer.weight.unflatten(1, (-1, 7, 7))
            layer.weight.copy_(((weight + weight.flip(-1)) / 2).flatten(1))
        # What is even cannot tell left from right: no shift to either.
        for layer in (rpn_head.anchor_deltas, heads.box_predictor.bbox_pred):
            layer.weight[::4] = 0
        # Start values are too small to tell much.
        rpn_head.objectness_logits.weight.mul_(30)
        for layer in (heads.box_predictor.cls_score, heads.action_head.predictor):
            layer.weight.mul_(30)
        heads.mask_head.predictor.weight.mul_(1000)
    return model.eval()


def flipped(clip):
    flow = clip["flow"].flip(-1)
    flow[:, 0] = -flow[:, 0]
    return clip | {"image": clip["image"].flip(-1), "flow": flow}


def detections(model, clip):
    with torch.no_grad():
        return model([clip])[0]["instances"]


def test_a_flipped_clip_gives_flipped_output(symmetric_model, make_clip):
    clip = make_clip(3, (1,), seed=3)
    found = detections(symmetric_model, clip)
    other = detections(symmetric_model, flipped(clip))
    assert len(found) == len(other) > 3
    boxes = other.pred_boxes.tensor
    mirrored = torch.stack([WIDTH - boxes[:, 2], boxes[:, 1], WIDTH - boxes[:, 0], boxes[:, 3]], 1)
    distance = (found.pred_boxes.tensor[:, None] - mirrored).abs().amax(dim=2)
    distance += 100.0 * (found.pred_classes[:, None] != other.pred_classes)
    nearest = distance.argmin(dim=1)
    assert sorted(nearest.tolist()) == list(range(len(found)))  # one each
    assert distance.amin(dim=1).max() < 1e-3
    torch.testing.assert_close(found.scores, other.scores[nearest], rtol=1e-4, atol=1e-5)
    actions = found.action_scores
    torch.testing.assert_close(actions, other.action_scores[nearest], rtol=1e-4, atol=1e-5)
    masks = found.pred_masks
    area = found.pred_boxes.area().sum()
    assert 0.1 * area < masks.sum() < 0.9 * area
    assert (masks != other.pred_masks[nearest].flip(-1)).sum() <= 0.01 * masks.sum()

    # Without the change of sign of flow, the actions are others.
    wrong = detections(symmetric_model, flipped(clip) | {"flow": clip["flow"].flip(-1)})
    assert torch.equal(wrong.pred_boxes.tensor, boxes)
    assert (wrong.action_scores - other.action_scores).abs().max() > 1e-2


def test_a_resnet_is_not_symmetric(small_model):
    """Why the backbone above is none."""
    model = small_model("MODEL.RESNETS.NORM", "FrozenBN").eval()
    with torch.no_grad():
        for module in model.backbone.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_((module.weight + module.weight.flip(-1)) / 2)
        image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        first, second = model.backbone(image)["p2"], model.backbone(image.flip(-1))["p2"]
    assert (first - second.flip(-1)).abs().max() > 0.1 * first.abs().max()
