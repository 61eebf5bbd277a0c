"""Against independent code: the network's parts in plain loops, the losses by formulas.

The loops compute in float64, with no operator of torch but indexing.
"""

import math

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes

from a2d_d2.modeling.temporal import TemporalConv

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
LOSS_WEIGHTS = {"RPN_CLS": 2.0, "BOX_REG": 3.0, "ACTOR": 5.0, "ACTION": 7.0, "MASK": 11.0}


# ---------------------------------------------------------------- RoIAlign


def bilinear(plane, y, x):
    """The value between pixel centres; the edge's beyond them, and 0 a pixel beyond the edge."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = min(int(y), max(height - 2, 0)), min(int(x), max(width - 2, 0))
    value = 0.0
    for i in (top, top + 1):
        for j in (left, left + 1):
            weight = max(0.0, 1 - abs(y - i)) * max(0.0, 1 - abs(x - j))
            if weight:
                value += weight * plane[i, j]
    return value


def roi_align(planes, box, scale, size, sampling_ratio=0):
    """(C, size, size) means over each bin's samples: RoIAlign, half a pixel shifted."""
    x1, y1, x2, y2 = (float(v) * scale - 0.5 for v in box)
    bin_height, bin_width = (y2 - y1) / size, (x2 - x1) / size
    rows = sampling_ratio or math.ceil((y2 - y1) / size)
    columns = sampling_ratio or math.ceil((x2 - x1) / size)
    result = np.zeros((len(planes), size, size))
    for c, plane in enumerate(planes):
        for i in range(size):
            for j in range(size):
                for p in range(rows):
                    for q in range(columns):
                        y = y1 + (i + (p + 0.5) / rows) * bin_height
                        x = x1 + (j + (q + 0.5) / columns) * bin_width
                        result[c, i, j] += bilinear(plane, y, x) / (rows * columns)
    return result


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_equals_direct_loops(small_model, sampling_ratio):
    """RoIAlign-AN, levels and all: each box is pooled from the level that its size says."""
    model = small_model("MODEL.ROI_ACTION_HEAD.POOLER_SAMPLING_RATIO", sampling_ratio)
    pooler = model.roi_heads.action_pooler
    boxes = [
        [3.2, 4.1, 9.7, 12.3],
        [10.0, 8.0, 29.0, 25.5],
        [0.0, 0.0, 64.0, 40.0],
        [-3.0, 20.0, 30.5, 68.0],
        [1.5, 2.5, 62.0, 63.0],
    ]
    of_frame = [0, 1, 1, 0, 1]
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(2, 2, 64 // s, 64 // s, generator=generator) for s in (4, 8, 16, 32)]
    per_frame = [
        Boxes(torch.tensor([b for b, f in zip(boxes, of_frame, strict=True) if f == frame]))
        for frame in (0, 1)
    ]
    pooled = pooler(features, per_frame)
    levels = set()
    order = [i for frame in (0, 1) for i, f in enumerate(of_frame) if f == frame]
    for result, i in zip(pooled, order, strict=True):
        x1, y1, x2, y2 = boxes[i]
        # Equation (1) of the FPN paper, with 28 pixels as its canonical size.
        level = math.floor(4 + math.log2(math.sqrt((x2 - x1) * (y2 - y1)) / 28))
        level = min(max(level, 2), 5)
        levels.add(level)
        planes = features[level - 2][of_frame[i]].double().numpy()
        expected = roi_align(planes, boxes[i], 1 / 2**level, 7, sampling_ratio)
        np.testing.assert_allclose(result.numpy(), expected, **TOLERANCE)
    assert len(levels) >= 3


# ---------------------------------------------------------------- temporal convolution


@pytest.mark.parametrize("num_layers", [1, 2])
def test_temporal_convolution_equals_direct_loops(num_layers):
    torch.manual_seed(0)
    module = TemporalConv({"p2": ShapeSpec(channels=3, stride=4)}, num_layers=num_layers)
    for layer in module.levels["p2"]:
        torch.nn.init.normal_(layer.bias)
    frames, keys = 5, [0, 2, 4]
    video = torch.randn(frames, 3, 2, 3)
    neighbours = torch.tensor(keys)[:, None] + torch.arange(-num_layers, num_layers + 1)
    neighbours[(neighbours < 0) | (neighbours >= frames)] = -1
    result = module({"p2": video}, neighbours)["p2"].detach()

    values = video.double().numpy()
    for layer in module.levels["p2"]:
        weight = layer.weight.detach().double().numpy()[..., 0, 0]  # (out, in, time)
        after = np.zeros_like(values)
        for t in range(frames):
            for c in range(3):
                after[t, c] = layer.bias[c].item()
                for step in (-1, 0, 1):
                    if 0 <= t + step < frames:
                        for k in range(3):
                            after[t, c] += weight[c, k, step + 1] * values[t + step, k]
        values = after
    np.testing.assert_allclose(result.numpy(), values[keys], **TOLERANCE)


# ---------------------------------------------------------------- equation (1)


def log_softmax(row):
    row = row.astype(float)
    return row - row.max() - math.log(np.exp(row - row.max()).sum())


def binary_cross_entropy(logit, truth):
    probability = 1 / (1 + math.exp(-float(logit)))
    return -math.log(probability if truth else 1 - probability)


def deltas(box, truth, weights):
    """The offsets from a box to another that the paper of R-CNN defines, times ``weights``."""
    width, height = box[2] - box[0], box[3] - box[1]
    true_width, true_height = truth[2] - truth[0], truth[3] - truth[1]
    return np.array(weights) * [
        (truth[0] + true_width / 2 - box[0] - width / 2) / width,
        (truth[1] + true_height / 2 - box[1] - height / 2) / height,
        math.log(true_width / width),
        math.log(true_height / height),
    ]


def arrays(tensors):
    return [x.detach().double().numpy() for x in tensors]


@pytest.fixture
def training(small_model, make_clip, losses_of):
    """A training step: its losses, and what each of them was computed from."""
    options = [x for k, v in LOSS_WEIGHTS.items() for x in (f"MODEL.LOSS_WEIGHTS.{k}", v)]
    model = small_model(*options)
    heads = model.roi_heads
    for layer in (heads.box_predictor.cls_score, heads.action_head.predictor):
        layer.weight.data *= 30  # start values are too small to tell much
    seen = {}

    def keep(module, method, name):
        original = getattr(module, method)

        def call(*args, **kwargs):
            seen[name] = args
            return original(*args, **kwargs)

        setattr(module, method, call)

    keep(model.proposal_generator, "losses", "rpn")
    keep(heads.box_predictor, "losses", "box")
    keep(heads.action_head, "loss", "action")
    heads.mask_head.register_forward_pre_hook(lambda module, args: seen.update(masks=args[1]))
    heads.mask_head.predictor.register_forward_hook(
        lambda module, args, output: seen.update(mask_logits=output)
    )
    clips = [
        make_clip(3, (0, 1), boxes=((4, 4, 30, 60, 0, 0), (20, 30, 60, 50, 4, 3))),
        make_clip(1, (0,), boxes=((10, 12, 45, 50, 6, 6),), seed=1),
        make_clip(2, (1,), boxes=(), seed=2),
    ]
    seen["losses"] = {k: v.item() for k, v in losses_of(model, clips).items()}
    seen["model"] = model
    return seen


def test_rpn_losses_equal_the_formulas(training):
    anchors, logits, labels, predicted, truths = training["rpn"]
    anchors = np.concatenate(arrays(x.tensor for x in anchors))
    logits, predicted = (np.concatenate(arrays(x), axis=1) for x in (logits, predicted))
    labels, truths = torch.stack(labels).numpy(), arrays(truths)
    classification = localisation = positives = 0
    for image, row in enumerate(labels):
        for i in np.flatnonzero(row >= 0):
            classification += binary_cross_entropy(logits[image, i], row[i] == 1)
            if row[i] == 1:
                positives += 1
                wanted = deltas(anchors[i], truths[image][i], (1, 1, 1, 1))
                localisation += np.abs(predicted[image, i] - wanted).sum()
    assert positives > 3
    # By the number of anchors that are sampled in an image, whatever was found.
    count = training["model"].proposal_generator.batch_size_per_image * len(labels)
    losses = training["losses"]
    assert losses["loss_rpn_cls"] == pytest.approx(2 * classification / count, rel=1e-4)
    assert losses["loss_rpn_loc"] == pytest.approx(3 * localisation / count, rel=1e-4)


def test_actor_and_box_losses_equal_the_formulas(training):
    (scores, predicted), proposals = training["box"]
    scores, predicted = arrays((scores, predicted))
    classes = [c for x in proposals for c in x.gt_classes.tolist()]
    boxes = np.concatenate(arrays(x.proposal_boxes.tensor for x in proposals))
    truths = np.concatenate(
        arrays((x.gt_boxes if x.has("gt_boxes") else x.proposal_boxes).tensor for x in proposals)
    )
    classification = regression = 0
    for i, actor in enumerate(classes):
        classification -= log_softmax(scores[i])[actor]
        if actor < 7:
            wanted = deltas(boxes[i], truths[i], (10, 10, 5, 5))
            regression += np.abs(predicted[i, 4 * actor : 4 * actor + 4] - wanted).sum()
    assert {0, 4, 6, 7} == set(classes)
    losses = training["losses"]
    assert losses["loss_cls"] == pytest.approx(5 * classification / len(classes), rel=1e-4)
    assert losses["loss_box_reg"] == pytest.approx(3 * regression / len(classes), rel=1e-4)


def test_action_loss_equals_equation_2(training):
    outputs, instances = training["action"]
    actions = [y for x in instances for y in x.gt_actions.tolist()]
    actors = [x for image in instances for x in image.gt_classes.tolist()]
    assert {(0, 0), (4, 3), (6, 6)} == set(zip(actors, actions, strict=True))  # foreground alone
    (outputs,) = arrays([outputs])
    total = -sum(log_softmax(row)[y] for row, y in zip(outputs, actions, strict=True))
    assert training["losses"]["loss_action"] == pytest.approx(7 * total / len(actions), rel=1e-4)


def test_mask_loss_equals_the_formula(training):
    (logits,) = arrays([training["mask_logits"]])
    side = logits.shape[-1]
    total = count = 0
    rows = iter(logits)
    for image in training["masks"]:
        masks = image.gt_masks.tensor.double().numpy() if len(image) else []
        for i, box in enumerate(image.proposal_boxes.tensor.tolist()):
            row, actor = next(rows), int(image.gt_classes[i])
            share = roi_align(masks[i : i + 1], box, 1.0, side)[0]
            for logit, value in zip(row[actor].ravel(), share.ravel(), strict=True):
                total += binary_cross_entropy(logit, value >= 0.5 - 1e-6)
                count += 1
    assert count >= 3 * side * side and next(rows, None) is None
    assert training["losses"]["loss_mask"] == pytest.approx(11 * total / count, rel=1e-3)
