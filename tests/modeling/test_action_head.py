import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage

from a2d_d2.label_space import LabelSpace
from a2d_d2.modeling.action_head import build_action_head, predict_actions

ADULT, BALL, DOG = (LabelSpace.a2d().actor_index(name) for name in ("adult", "ball", "dog"))
INPUT = ShapeSpec(channels=3, height=7, width=7)


def make_head(cfg):
    torch.manual_seed(0)
    head = build_action_head(cfg, INPUT).train()
    torch.nn.init.normal_(head.predictor.weight)  # start values are too small to tell much
    return head


def regions(actors, actions):
    truth = Instances((64, 64))
    truth.gt_classes, truth.gt_actions = torch.tensor(actors), torch.tensor(actions)
    return truth


def empty():
    """Regions of a frame without ground truth: there is no gt_actions."""
    truth = Instances((64, 64))
    truth.gt_classes = torch.zeros(0, dtype=torch.int64)
    return truth


def test_loss_is_the_mean_negative_log_likelihood(small_cfg):
    head = make_head(small_cfg())
    x = torch.randn(3, 3, 7, 7)
    instances = [regions([DOG, ADULT], [1, 6]), empty(), regions([BALL], [3])]
    with EventStorage() as storage:
        loss = head(x, instances)["loss_action"]
        accuracy = storage.latest()["action_head/accuracy"][0]
    logits = head.predictor(head.layers(x).flatten(1))
    expected = F.cross_entropy(logits, torch.tensor([1, 6, 3]))
    torch.testing.assert_close(loss, expected)
    assert accuracy == (logits.argmax(1) == torch.tensor([1, 6, 3])).float().mean().item()


def test_excluded_actors_do_not_count(small_cfg):
    head = make_head(small_cfg("MODEL.ROI_ACTION_HEAD.EXCLUDED_ACTORS", ["dog", "ball"]))
    x = torch.randn(4, 3, 7, 7, requires_grad=True)
    with EventStorage():
        loss = head(x, [regions([DOG, ADULT, BALL, ADULT], [1, 6, 3, 0])])["loss_action"]
    loss.backward()
    assert (x.grad.flatten(1).abs().sum(dim=1) > 0).tolist() == [False, True, False, True]
    logits = head.predictor(head.layers(x).flatten(1))
    torch.testing.assert_close(loss, F.cross_entropy(logits[[1, 3]], torch.tensor([6, 0])))


@pytest.mark.parametrize("instances", [[regions([DOG], [1])], [empty()]])
def test_nothing_to_count_gives_a_zero_with_a_graph(small_cfg, instances):
    head = make_head(small_cfg("MODEL.ROI_ACTION_HEAD.EXCLUDED_ACTORS", ["dog"]))
    with EventStorage() as storage:
        loss = head(torch.randn(len(instances[0]), 3, 7, 7), instances)["loss_action"]
    loss.backward()
    assert loss == 0
    assert not storage.latest()  # no accuracy of nothing
    for parameter in head.parameters():
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))


def test_one_region_counts(small_cfg):
    head = make_head(small_cfg("MODEL.ROI_ACTION_HEAD.EXCLUDED_ACTORS", ["dog"]))
    x = torch.randn(2, 3, 7, 7)
    with EventStorage() as storage:
        loss = head(x, [regions([DOG, ADULT], [1, 6])])["loss_action"]
        accuracy = storage.latest()["action_head/accuracy"][0]
    logits = head.predictor(head.layers(x).flatten(1))[1]
    torch.testing.assert_close(loss, -logits.log_softmax(dim=0)[6])
    assert accuracy == float(logits.argmax() == 6)


def test_start_values(small_cfg):
    head = build_action_head(small_cfg("MODEL.ROI_ACTION_HEAD.FC_DIM", 1024), INPUT)
    assert head.predictor.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert abs(head.predictor.weight.mean()) < 1e-3
    assert not head.predictor.bias.any()


@pytest.mark.parametrize("name", ["ActionHead", "HierarchicalActionHead"])
def test_checkpoints_hold_weights_alone(small_cfg, name):
    """What the config says is not read from a checkpoint, which may be of another config."""
    head = build_action_head(small_cfg("MODEL.ROI_ACTION_HEAD.NAME", name), INPUT)
    assert set(head.state_dict()) == {name for name, _ in head.named_parameters()}


def test_zero_shot_leaves_the_other_losses_equal(small_model, make_clip, losses_of):
    clip = make_clip(boxes=((4, 4, 40, 60, DOG, 6), (30, 20, 60, 50, ADULT, 7)))
    plain = losses_of(small_model(), [clip])
    model = small_model("MODEL.ROI_ACTION_HEAD.EXCLUDED_ACTORS", ["dog"])
    masked = losses_of(model, [clip])
    assert {name for name in plain if plain[name] != masked[name]} == {"loss_action"}
    losses_of(model, [make_clip(boxes=((4, 4, 40, 60, DOG, 6),))])["loss_action"].backward()
    assert all((x.grad == 0).all() for x in model.roi_heads.action_head.parameters())


def test_unknown_actor_is_named(small_cfg):
    with pytest.raises(ValueError, match="no actor 'cow'"):
        build_action_head(small_cfg("MODEL.ROI_ACTION_HEAD.EXCLUDED_ACTORS", ["cow"]), INPUT)


def test_class_counts_must_be_those_of_the_label_space(small_cfg):
    with pytest.raises(ValueError, match="DATASETS.LABEL_SPACE has 7 actors and 9 actions"):
        build_action_head(small_cfg("MODEL.ROI_HEADS.NUM_CLASSES", 80), INPUT)


def test_scores_are_a_softmax_over_the_valid_actions():
    valid = torch.tensor([[True, True, False], [False, True, True]])
    instances = Instances((8, 8), pred_classes=torch.tensor([1, 0]))
    other = Instances((8, 8), pred_classes=torch.zeros(0, dtype=torch.int64))
    logits = torch.tensor([[9.0, 0.0, 0.0], [0.0, 0.0, 9.0]])
    predict_actions([other, instances], logits, valid)
    expected = torch.tensor([[0.0, 0.5, 0.5], [0.5, 0.5, 0.0]])
    assert torch.equal(instances.action_scores, expected)
    assert instances.pred_actions.tolist() == [1, 0]
    assert other.action_scores.shape == (0, 3)


@pytest.mark.parametrize("num_conv, num_fc", [(0, 2), (2, 0), (1, 1)])
def test_layers_are_configurable(small_cfg, num_conv, num_fc):
    cfg = small_cfg(
        *("MODEL.ROI_ACTION_HEAD.NUM_CONV", num_conv, "MODEL.ROI_ACTION_HEAD.NUM_FC", num_fc),
        *("MODEL.ROI_ACTION_HEAD.CONV_DIM", 5, "MODEL.ROI_ACTION_HEAD.FC_DIM", 6),
    )
    head = build_action_head(cfg, INPUT)
    shapes = [tuple(x.shape[:2]) for name, x in head.named_parameters() if "weight" in name]
    sizes = [3] + [5] * num_conv
    expected = list(zip(sizes[1:], sizes[:-1], strict=True))
    sizes = [sizes[-1] * 49] + [6] * num_fc + [9]
    assert shapes == expected + list(zip(sizes[1:], sizes[:-1], strict=True))


# ---------------------------------------------------------------- the hierarchical label space

HIERARCHICAL = ("MODEL.ROI_ACTION_HEAD.NAME", "HierarchicalActionHead")


def pair_rows(actor):
    """Outputs of the classifier of an actor: places of its pairs among all valid pairs."""
    return [i for i, pair in enumerate(LabelSpace.a2d().valid_pairs) if pair[0] == actor]


def test_hierarchical_loss_by_hand(small_cfg):
    head = make_head(small_cfg(*HIERARCHICAL))
    assert head.predictor.out_features == 43
    x = torch.randn(3, 3, 7, 7)
    instances = [regions([DOG, ADULT], [1, 6]), empty(), regions([BALL], [3])]
    with EventStorage() as storage:
        loss = head(x, instances)["loss_action"]
        accuracy = storage.latest()["action_head/accuracy"][0]
    outputs = head.predictor(head.layers(x).flatten(1))
    expected, correct = 0, 0
    # Crawling is the first of dog's actions, running the sixth of adult's, flying ball's first.
    for row, actor, place in zip(outputs, (DOG, ADULT, BALL), (0, 5, 0), strict=True):
        own = row[pair_rows(actor)]
        expected -= torch.log(own[place].exp() / own.exp().sum()) / 3
        correct += own.argmax().item() == place
    torch.testing.assert_close(loss, expected)
    assert accuracy == pytest.approx(correct / 3)


def test_hierarchical_scores_are_of_the_predicted_actors_classifier(small_cfg):
    head = make_head(small_cfg(*HIERARCHICAL)).eval()
    x = torch.randn(2, 3, 7, 7)
    found = Instances((64, 64), pred_classes=torch.tensor([BALL, DOG]))
    none = Instances((64, 64), pred_classes=torch.zeros(0, dtype=torch.int64))
    with torch.no_grad():
        head(x, [none, found])
        outputs = head.predictor(head.layers(x).flatten(1))
    for row, actor, scores in zip(outputs, (BALL, DOG), found.action_scores, strict=True):
        own = row[pair_rows(actor)].softmax(dim=0)
        valid = torch.tensor(LabelSpace.a2d().valid[actor])
        torch.testing.assert_close(scores[valid], own)
        assert not scores[~valid].any()
    assert torch.equal(found.pred_actions, found.action_scores.argmax(dim=1))
    assert none.action_scores.shape == (0, 9)


def test_only_the_classifiers_of_counted_actors_learn(small_cfg):
    head = make_head(small_cfg(*HIERARCHICAL, "MODEL.ROI_ACTION_HEAD.EXCLUDED_ACTORS", ["dog"]))
    with EventStorage():
        loss = head(torch.randn(2, 3, 7, 7), [regions([DOG, BALL], [6, 3])])["loss_action"]
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())
    learns = head.predictor.weight.grad.abs().sum(dim=1) > 0
    assert learns.nonzero().flatten().tolist() == pair_rows(BALL)


@pytest.mark.parametrize("instances", [[regions([DOG], [1])], [empty()]])
def test_hierarchical_with_nothing_to_count(small_cfg, instances):
    head = make_head(small_cfg(*HIERARCHICAL, "MODEL.ROI_ACTION_HEAD.EXCLUDED_ACTORS", ["dog"]))
    with EventStorage():
        loss = head(torch.randn(len(instances[0]), 3, 7, 7), instances)["loss_action"]
    loss.backward()
    assert loss == 0
    assert all((parameter.grad == 0).all() for parameter in head.parameters())
