import torch
from detectron2.modeling.poolers import assign_boxes_to_levels


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
