
import pytest
import torch
from detectron2.structures import Instances

ACTOR_LOSSES = {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"}
LOSSES = ACTOR_LOSSES | {"loss_action"}


def predict(model, clips):
    with torch.no_grad():
        return [x["instances"] for x in model.eval()(clips)]


def assert_same(first: Instances, second: Instances, **tolerance):
    assert len(first) == len(second) > 0
    assert first.image_size == second.image_size
    for name, value in first.get_fields().items():
        other = second.get(name)
        if name == "pred_boxes":
            value, other = value.tensor, other.tensor
        torch.testing.assert_close(value, other, **tolerance)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize(
    "options, clip, names",
    [
        ([], {}, LOSSES),
        (["MODEL.FLOW.ENABLED", False], {}, LOSSES),
        (["MODEL.TEMPORAL.ENABLED", False], {"radius": 0}, LOSSES),
        (["MODEL.MASK_ON", False], {}, LOSSES - {"loss_mask"}),
        (["MODEL.TRAIN_BRANCH", "actor"], {"radius": 0}, ACTOR_LOSSES),
        (["MODEL.TRAIN_BRANCH", "action"], {}, {"loss_action"}),
        (
            ["MODEL.FLOW.ENABLED", False, "MODEL.TEMPORAL.ENABLED", False, "MODEL.MASK_ON", False],
            {"radius": 0},
            LOSSES - {"loss_mask"},
        ),
    ],
)
def test_every_trainable_weight_gets_a_gradient(
    small_model, make_clip, losses_of, options, clip, names
):
    model = small_model(*options)
    clips = [
        make_clip(5, (1, 2, 4), **clip),
        make_clip(1, (0,), **clip, seed=1),
        make_clip(2, (1,), boxes=(), **clip),
    ]
    losses = losses_of(model, clips)
    assert set(losses) == names
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all(), name
