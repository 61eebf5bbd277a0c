import pytest
import torch
from detectron2.modeling import build_model, detector_postprocess
from detectron2.structures import pairwise_iou

from a2d_d2.label_space import LabelSpace
from a2d_d2.modeling import FrameFeatures

ACTOR_LOSSES = {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"}
LOSSES = ACTOR_LOSSES | {"loss_action"}
# Batch norm in training sees every frame of the batch; frozen, frames are independent.
FROZEN = ("MODEL.RESNETS.NORM", "FrozenBN")


def predict(model, clips):
    with torch.no_grad():
        return [x["instances"] for x in model.eval()(clips)]


def assert_same(first, second):
    assert len(first) == len(second) > 0
    assert first.image_size == second.image_size
    for name, value in second.get_fields().items():
        other = first.get(name)
        if name == "pred_boxes":
            value, other = value.tensor, other.tensor
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize(
    "options, radius, names",
    [
        ([], 1, LOSSES),
        (["MODEL.TEMPORAL.NUM_LAYERS", 2], 2, LOSSES),
        (["MODEL.FLOW.ENABLED", False], 1, LOSSES),
        (["MODEL.TEMPORAL.ENABLED", False], 0, LOSSES),
        (["MODEL.MASK_ON", False], 1, LOSSES - {"loss_mask"}),
        (["MODEL.TRAIN_BRANCH", "actor"], 0, ACTOR_LOSSES),
        (["MODEL.TRAIN_BRANCH", "action"], 1, {"loss_action"}),
        (
            ["MODEL.FLOW.ENABLED", False, "MODEL.TEMPORAL.ENABLED", False, "MODEL.MASK_ON", False],
            0,
            LOSSES - {"loss_mask"},
        ),
    ],
)
def test_every_trainable_weight_gets_a_gradient(
    small_model, make_clip, losses_of, options, radius, names
):
    model = small_model(*options)
    clips = [
        make_clip(5, (1, 2, 4), radius=radius),
        make_clip(1, (0,), radius=radius, seed=1),
        make_clip(2, (1,), radius=radius, height=48, boxes=()),
    ]
    losses = losses_of(model, clips)
    assert set(losses) == names
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all(), name


def test_without_ground_truth_losses_are_finite_and_keep_their_keys(
    small_model, make_clip, losses_of
):
    model = small_model()
    losses = losses_of(model, [make_clip(boxes=()), make_clip(boxes=(), seed=1)])
    assert set(losses) == LOSSES
    for name in ("loss_rpn_loc", "loss_box_reg", "loss_mask", "loss_action"):
        assert losses[name] == 0
    sum(losses.values()).backward()
    for parameter in model.roi_heads.action_head.parameters():
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))


def test_loss_weights_of_equation_1(small_model, make_clip, losses_of):
    plain = losses_of(small_model(), [make_clip()])
    keys = ("RPN_CLS", "BOX_REG", "ACTOR", "ACTION", "MASK")
    options = [x for i, key in enumerate(keys) for x in (f"MODEL.LOSS_WEIGHTS.{key}", i + 2.0)]
    weighted = losses_of(small_model(*options), [make_clip()])
    factors = {
        "loss_rpn_cls": 2,
        "loss_rpn_loc": 3,
        "loss_box_reg": 3,
        "loss_cls": 4,
        "loss_action": 5,
        "loss_mask": 6,
    }
    for name, factor in factors.items():
        torch.testing.assert_close(weighted[name], plain[name] * factor)


def test_losses_count_at_annotated_frames_only(small_model, make_clip, losses_of):
    model = small_model(*FROZEN)
    seen = []
    model.proposal_generator.register_forward_pre_hook(
        lambda module, args: seen.append(len(args[1]["p2"]))
    )
    clip = make_clip(6, (2, 3))
    losses = losses_of(model, [clip])
    assert seen == [2]  # of 6 frames

    outside = make_clip(6, (2, 3), seed=1)
    for key in ("image", "flow"):
        outside[key][1:5] = clip[key][1:5]
    assert losses_of(model, [outside]) == losses

    context = make_clip(6, (2, 3), seed=1)
    for key in ("image", "flow"):
        context[key][2:4] = clip[key][2:4]
    changed = losses_of(model, [context])
    assert {name for name in losses if changed[name] != losses[name]} == {"loss_action"}


def test_action_branch_alone_leaves_the_actor_branch_as_it_is(small_model, make_clip, losses_of):
    model = small_model("MODEL.TRAIN_BRANCH", "action")
    trained = ("flow_backbone.", "temporal.", "roi_heads.action_head.")
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == name.startswith(trained), name
    before = {name: x.clone() for name, x in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses_of(model, [make_clip()])["loss_action"].backward()
    optimizer.step()
    changed = {name for name, x in model.state_dict().items() if not torch.equal(x, before[name])}
    assert all(name.startswith(trained) for name in changed)  # not even batch norm's statistics
    assert "flow_backbone.bottom_up.stem.conv1.weight" in changed
    assert "roi_heads.action_head.predictor.weight" in changed


def test_actor_branch_alone_has_no_action_branch(small_model, make_clip):
    model = small_model("MODEL.TRAIN_BRANCH", "actor")
    assert not [x for x in model.state_dict() if "flow" in x or "temporal" in x or "action" in x]
    clip = make_clip(1, (0,), radius=0)
    del clip["flow"]
    (instances,) = predict(model, [clip])
    valid = torch.tensor(LabelSpace.a2d().valid)[instances.pred_classes].float()
    torch.testing.assert_close(instances.action_scores, valid / valid.sum(dim=1, keepdim=True))


def test_unknown_branch_is_named(small_cfg):
    with pytest.raises(ValueError, match="MODEL.TRAIN_BRANCH is 'both'; it must be one of joint"):
        build_model(small_cfg("MODEL.TRAIN_BRANCH", "both"))


def test_freezing_spares_the_flow_backbone(small_model):
    model = small_model("MODEL.BACKBONE.FREEZE_AT", 2)
    assert not model.backbone.bottom_up.stem.conv1.weight.requires_grad
    assert not model.backbone.bottom_up.res2[0].conv1.weight.requires_grad
    assert all(parameter.requires_grad for parameter in model.flow_backbone.parameters())


def test_overfits_one_clip_to_the_right_pair(small_model, make_clip, losses_of):
    actor, action = LabelSpace.a2d().actor_index("dog"), LabelSpace.a2d().action_index("jumping")
    clip = make_clip(3, (1,), ((12, 8, 52, 56, actor, action),))
    model = small_model("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=30)
    for step in range(30):
        optimizer.zero_grad()
        sum(losses_of(model, [clip], seed=step).values()).backward()
        optimizer.step()
        schedule.step()
    (instances,) = predict(model, [clip])
    best = instances[instances.scores.argmax().item()]
    assert best.pred_classes == actor
    assert best.pred_actions == action
    assert best.action_scores[0, action] > 0.9
    (truth,) = clip["instances"]
    assert pairwise_iou(best.pred_boxes, truth.gt_boxes) > 0.5
    mask, true_mask = best.pred_masks[0], truth.gt_masks.tensor[0]
    assert (mask & true_mask).sum() / (mask | true_mask).sum() > 0.5


# ---------------------------------------------------------------- inference


def test_detections_carry_masks_and_joint_probabilities(small_model, make_clip):
    clip = make_clip()
    clip |= {"height": 96, "width": 128}
    (instances,) = predict(small_model(), [clip])
    count = len(instances)
    assert count > 0
    assert instances.image_size == (96, 128)
    assert instances.pred_masks.shape == (count, 96, 128)
    assert instances.pred_masks.dtype == torch.bool
    assert instances.action_scores.shape == (count, 9)
    valid = torch.tensor(LabelSpace.a2d().valid)[instances.pred_classes]
    assert (instances.action_scores[~valid] == 0).all()
    assert (instances.action_scores[valid] > 0).all()
    torch.testing.assert_close(instances.action_scores.sum(dim=1), torch.ones(count))
    assert torch.equal(instances.pred_actions, instances.action_scores.argmax(dim=1))
    assert len(set(instances.pred_classes.tolist())) > 1  # boxes are of each actor


def test_a_frame_without_detections(small_model, make_clip):
    (instances,) = predict(small_model("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.0), [make_clip()])
    assert len(instances) == 0
    assert instances.action_scores.shape == (0, 9)
    assert instances.pred_actions.shape == (0,)
    assert instances.pred_masks.shape == (0, 64, 64)


def test_forward_is_the_composition_of_its_three_steps(small_model, make_clip):
    model = small_model().eval()
    clip = make_clip(3, (1,))
    with torch.no_grad():
        batch = model.preprocess([clip])
        frames = [  # as streaming does it, frame by frame
            model.extract_features(batch.images[i : i + 1], batch.flow[i : i + 1]) for i in range(3)
        ]
        window = FrameFeatures(
            *(
                {level: torch.cat([getattr(x, stream)[level] for x in frames]) for level in levels}
                for stream, levels in vars(frames[0]).items()
            )
        )
        fused = model.aggregate(window, torch.tensor([[0, 1, 2]]))
        (instances,) = model.detect(frames[1].appearance, fused, [(64, 64)])
    assert_same(detector_postprocess(instances, 64, 64), predict(model, [clip])[0])


def test_prediction_does_not_depend_on_the_rest_of_the_batch(small_model, make_clip):
    model = small_model()
    clips = [make_clip(3, (1,)), make_clip(2, (0,), seed=1), make_clip(3, (2,), seed=2)]
    together = predict(model, clips)
    for clip, instances in zip(clips, together, strict=True):
        assert_same(predict(model, [clip])[0], instances)


def test_single_frame_path_is_detectron2s_bit_for_bit(small_model, small_cfg, make_clip, losses_of):
    options = (*FROZEN, "MODEL.ROI_HEADS.CANONICAL_BOX_SIZE", 224)
    model = small_model(*options, "MODEL.TEMPORAL.ENABLED", False)
    reference = build_model(
        small_cfg(
            *FROZEN,
            *("MODEL.META_ARCHITECTURE", "GeneralizedRCNN"),
            *("MODEL.ROI_HEADS.NAME", "StandardROIHeads"),
        )
    )
    weights = model.state_dict()
    reference.load_state_dict({name: weights[name] for name in reference.state_dict()})
    clip = make_clip(1, (0,), radius=0, boxes=((4, 4, 30, 60, 0, 0), (20, 30, 60, 50, 4, 3)))
    image = {
        "image": clip["image"][0],
        "instances": clip["instances"][0],
        "height": 80,
        "width": 80,
    }
    clip |= {"height": 80, "width": 80}

    def preprocess_image(inputs, original=reference.preprocess_image):
        images = original(inputs)
        images.tensor = images.tensor.contiguous(memory_format=torch.channels_last)
        return images

    # Of the same pixels in another layout, convolutions round differently.
    reference.preprocess_image = preprocess_image
    (found,), (expected,) = predict(model, [clip]), predict(reference, [image])
    assert len(found) == len(expected) > 0
    for name, value in expected.get_fields().items():
        other = found.get(name)
        if name == "pred_boxes":
            value, other = value.tensor, other.tensor
        assert torch.equal(value, other), name
    losses = losses_of(model, [clip])
    expected = losses_of(reference, [image])
    assert {name: losses[name].item() for name in expected} == {
        name: loss.item() for name, loss in expected.items()
    }


def test_frames_in_channels_last_have_the_features_of_plain_ones(small_model, make_clip):
    model = small_model().eval()
    batch = model.preprocess([make_clip(3, (1,))])
    with torch.no_grad():
        fast = model.extract_features(batch.images, batch.flow)
        plain = model.extract_features(batch.images.contiguous(), batch.flow.contiguous())
    assert not batch.images.is_contiguous()
    for stream in ("appearance", "motion"):
        for level, expected in getattr(plain, stream).items():
            found = getattr(fast, stream)[level]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max())


def test_frames_are_normalised_then_padded(small_model, make_clip):
    model = small_model("MODEL.FLOW.PIXEL_MEAN", [1.0, 2.0, 3.0])
    clips = [make_clip(2, (1,), height=40), make_clip(1, (0,), width=48)]
    batch = model.eval().preprocess(clips)
    assert batch.images.shape == batch.flow.shape == (3, 3, 64, 64)
    assert batch.key_sizes == [(40, 64), (64, 48)]
    assert batch.keys.tolist() == [1, 2]
    assert batch.neighbours.tolist() == [[0, 1, -1], [-1, 2, -1]]
    for x in (batch.images, batch.flow):
        assert (x[:2, :, 40:] == 0).all() and (x[2, :, :, 48:] == 0).all()
    mean = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
    torch.testing.assert_close(batch.flow[2, :, :, :48], (clips[1]["flow"][0] - mean) / 2)


def test_bfloat16_autocast_keeps_heads_in_float32(small_model, make_clip, losses_of):
    model = small_model(*FROZEN)
    clip = make_clip()
    exact = losses_of(model, [clip])
    with torch.autocast("cpu", torch.bfloat16):
        losses = losses_of(model, [clip])
        model.eval()
        batch = model.preprocess([clip])
        features = model.extract_features(batch.images, batch.flow)
        (instances,) = predict(model, [clip])
    assert features.appearance["p2"].dtype == torch.bfloat16
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    assert instances.scores.dtype == instances.action_scores.dtype == torch.float32
    for name in ("loss_rpn_cls", "loss_action"):
        torch.testing.assert_close(losses[name], exact[name], rtol=0.05, atol=0.05)
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
