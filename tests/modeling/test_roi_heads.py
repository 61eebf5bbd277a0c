import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from detectron2.modeling.poolers import assign_boxes_to_levels

from a2d_d2.label_space import LabelSpace

CARTESIAN = (
    *("MODEL.ROI_HEADS.NAME", "CartesianROIHeads", "MODEL.CLASSES", "pairs"),
    *("MODEL.ROI_HEADS.NUM_CLASSES", 43, "MODEL.MASK_ON", False),
)


def test_canonical_box_size_reaches_every_pooler(small_model):
    heads = small_model("MODEL.ROI_HEADS.CANONICAL_BOX_SIZE", 28).roi_heads
    poolers = (heads.box_pooler, heads.mask_pooler, heads.action_pooler)
    assert [pooler.canonical_box_size for pooler in poolers] == [28] * 3


def test_regions_of_small_frames_spread_over_the_levels(small_model, make_clip, losses_of):
    model = small_model("MODEL.ROI_HEADS.CANONICAL_BOX_SIZE", 28)
    boxes = ((0, 0, 7, 7, 0, 0), (0, 0, 14, 14, 0, 0), (0, 0, 28, 28, 0, 0), (0, 0, 60, 60, 0, 0))
    clip = make_clip(boxes=boxes)
    levels = assign_boxes_to_levels([clip["instances"][0].gt_boxes], 2, 5, 28, 4)
    assert (levels + 2).tolist() == [2, 3, 4, 5]
    losses_of(model, [clip])["loss_action"].backward()
    for module in model.temporal.values():
        for level, layers in module.levels.items():
            assert layers[0].weight.grad.abs().sum() > 0, level


def test_given_boxes_get_masks_and_actions(small_model, make_clip):
    model = small_model().eval()
    with torch.no_grad():
        batch = model.preprocess([make_clip()])
        features = model.extract_features(batch.images, batch.flow)
        fused = model.aggregate(features, batch.neighbours)
        appearance = {level: x[batch.keys] for level, x in features.appearance.items()}
        (found,) = model.detect(appearance, fused, batch.key_sizes)
        known = type(found)(found.image_size)
        known.pred_boxes, known.pred_classes = found.pred_boxes, found.pred_classes
        named = appearance | {f"fused_{level}": x for level, x in fused.items()}
        (again,) = model.roi_heads.forward_with_given_boxes(named, [known])
    assert len(found) > 0
    torch.testing.assert_close(again.action_scores, found.action_scores)
    torch.testing.assert_close(again.pred_masks, found.pred_masks)


def test_canonical_box_size_of_detectron2s_own_model(small_cfg):
    model = build_model(
        small_cfg(
            *("MODEL.META_ARCHITECTURE", "GeneralizedRCNN"),
            *("MODEL.ROI_HEADS.NAME", "CanonicalROIHeads"),
        )
    )
    heads = model.roi_heads
    assert [x.canonical_box_size for x in (heads.box_pooler, heads.mask_pooler)] == [28] * 2


# ---------------------------------------------------------------- the Cartesian label space


def test_cartesian_heads_learn_pairs_from_both_streams(small_model, make_clip, losses_of):
    model = small_model(*CARTESIAN)
    predictor = model.roi_heads.box_predictor
    assert predictor.cls_score.out_features == 43 + 1
    assert predictor.bbox_pred.out_features == 43 * 4
    seen = []
    predictor.register_forward_hook(lambda module, args, outputs: seen.append(outputs[0]))
    dog, cat = (LabelSpace.a2d().actor_index(name) for name in ("dog", "cat"))
    clip = make_clip(boxes=((4, 4, 30, 60, dog, 6), (30, 10, 60, 50, cat, 4)))
    before = clip["instances"][0].gt_classes.clone()
    losses = losses_of(model, [clip, make_clip(boxes=(), seed=1)])
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"}
    assert torch.equal(clip["instances"][0].gt_classes, before)

    losses["loss_cls"].backward()
    for part in (model.backbone, model.flow_backbone, *model.temporal.values()):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    assert not [name for name, _ in model.named_parameters() if "action" in name or "mask" in name]

    # The sampled regions' classes: the two pairs and background, by the loss that they give.
    sampled = []
    label = model.roi_heads.label_and_sample_proposals
    model.roi_heads.label_and_sample_proposals = lambda *args: (
        sampled.extend(label(*args)) or (sampled)
    )
    again = losses_of(model, [clip])
    classes = torch.cat([x.gt_classes for x in sampled])
    pairs = LabelSpace.a2d().valid_pairs
    assert set(classes.tolist()) == {pairs.index((dog, 6)), pairs.index((cat, 4)), 43}
    torch.testing.assert_close(again["loss_cls"], F.cross_entropy(seen[-1], classes))


def test_cartesian_detections_are_actors_with_one_action(small_model, make_clip):
    model = small_model(*CARTESIAN, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0).eval()
    scores = []
    model.roi_heads.box_predictor.register_forward_hook(
        lambda module, args, outputs: scores.append(outputs[0].softmax(dim=1))
    )
    clip = make_clip()
    with torch.no_grad():
        batch = model.preprocess([clip])
        features = model.extract_features(batch.images, batch.flow)
        fused = model.aggregate(features, batch.neighbours)
        appearance = {level: x[batch.keys] for level, x in features.appearance.items()}
        (found,) = model.detect(appearance, fused, batch.key_sizes)
        (whole,) = model([clip])
    assert len(found) > 0
    assert found.action_scores.shape == (len(found), 9)
    assert torch.equal(found.action_scores, F.one_hot(found.pred_actions, 9).float())
    pairs = LabelSpace.a2d().valid_pairs
    for actor, action, score in zip(
        found.pred_classes.tolist(), found.pred_actions.tolist(), found.scores, strict=True
    ):
        column = scores[0][:, pairs.index((actor, action))]
        assert (column == score).any()  # the softmax over all pairs and background
    assert torch.equal(whole["instances"].scores, found.scores)


def test_a_missing_box_head_is_named(small_model):
    with pytest.raises(ValueError, match=r"MODEL\.ROI_BOX_HEAD\.NAME is ''; it must be one of"):
        small_model("MODEL.ROI_BOX_HEAD.NAME", "")
