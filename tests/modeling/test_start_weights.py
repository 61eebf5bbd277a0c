import pickle
import re

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_backbone, build_model

from a2d_d2.label_space import LabelSpace
from a2d_d2.modeling.start_weights import (
    coco_rows,
    load_start_weights,
    load_trained_weights,
)

COCO = MetadataCatalog.get("coco_2017_val").thing_classes
UNKNOWN_TO_IMAGENET = ("flow_backbone.fpn_", "temporal.motion.")
ACTION_BRANCH = ("temporal.", "roi_heads.action_head.")
BOTTLENECK = ["MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.NORM", "FrozenBN"]
# Narrow layers, so that a ResNet of bottleneck blocks stays small.
BOTTLENECK += ["MODEL.RESNETS.WIDTH_PER_GROUP", 8, "MODEL.RESNETS.RES2_OUT_CHANNELS", 16]
BOTTLENECK += ["MODEL.RESNETS.STEM_OUT_CHANNELS", 8]


def randomize(state):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(x.shape, generator=generator) + 0.5 for name, x in state.items()}


def class_dependent(name):
    return re.search(r"cls_score|bbox_pred|mask_head\.predictor", name) is not None


@pytest.fixture
def coco_weights(small_cfg, tmp_path):
    """(path, tensors) of a file as the zoo's Mask R-CNN: 80 classes, NumPy arrays in a pickle."""
    cfg = small_cfg(
        *BOTTLENECK,
        *("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.ROI_HEADS.NAME", "StandardROIHeads"),
        *("MODEL.ROI_HEADS.NUM_CLASSES", 80),
    )
    weights = randomize(build_model(cfg).state_dict())
    arrays = {name: x.numpy() for name, x in weights.items()}
    path = tmp_path / "model_final_a3ec72.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))
    return str(path), weights


def resnet_weights(cfg):
    """Random weights of the backbone's ResNet, by Detectron2's names."""
    return randomize(build_backbone(cfg).bottom_up.state_dict())


def caffe2_name(name):
    """res2.0.conv1.norm.weight -> res2_0_branch2a_bn_s, as in the zoo's R-50.pkl and R-101.pkl."""
    name = name.replace("stem.conv1.norm", "res_conv1_bn").replace("stem.", "")
    for ours, theirs in (("shortcut", "branch1"), ("conv1", "branch2a")):
        name = re.sub(rf"(res\d\.\d+\.){ours}", rf"\1{theirs}", name)
    name = name.replace(".conv2", ".branch2b").replace(".conv3", ".branch2c")
    name = name.replace(".norm.weight", "_bn.s").replace("_bn.weight", "_bn.s")
    name = name.replace(".norm.bias", "_bn.b").replace("_bn.bias", "_bn.b")
    return name.replace(".weight", ".w").replace(".", "_")


@pytest.fixture
def caffe2_resnet(small_cfg, tmp_path):
    """(path, tensors) of a file as the zoo's MSRA ResNets: Caffe2's names, merged statistics."""
    weights = resnet_weights(small_cfg(*BOTTLENECK))
    kept = {name: x for name, x in weights.items() if "running" not in name}
    blobs = {caffe2_name(name): x.numpy() for name, x in kept.items()}
    assert {"conv1_w", "res_conv1_bn_s", "res2_0_branch2a_w", "res2_0_branch1_bn_b"} <= set(blobs)
    blobs |= {"fc1000_w": np.zeros((1000, 8), "f"), "fc1000_b": np.zeros(1000, "f")}
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(blobs))
    return str(path), kept


@pytest.fixture
def torchvision_resnet(small_cfg, tmp_path):
    """(path, tensors) of a file as Detectron2's converter makes of torchvision's ResNets."""
    weights = resnet_weights(small_cfg(*BOTTLENECK))
    arrays = {name: x.numpy() for name, x in weights.items()}
    arrays |= {"stem.fc.weight": np.zeros((1000, 8), "f"), "stem.fc.bias": np.zeros(1000, "f")}
    content = {"model": arrays, "__author__": "torchvision", "matching_heuristics": True}
    path = tmp_path / "resnet50.pkl"
    path.write_bytes(pickle.dumps(content))
    return str(path), weights


def test_coco_model_fills_the_appearance_stream(small_cfg, coco_weights, package_log):
    path, weights = coco_weights
    cfg = small_cfg(*BOTTLENECK, "MODEL.WEIGHTS", path)
    model = build_model(cfg)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    result = load_start_weights(model, cfg)
    after = model.state_dict()

    assert result["appearance"].left
    assert all(name.startswith(ACTION_BRANCH) for name in result["appearance"].left)
    assert result["appearance"].loaded == len(weights)
    assert result["flow"].loaded == 0
    for name, x in after.items():
        if name in weights and not class_dependent(name):
            assert torch.equal(x, weights[name]), name
        elif name.startswith(ACTION_BRANCH) or name.startswith("flow_backbone"):
            assert torch.equal(x, before[name]) or "running_var" in name, name

    lines = [record.getMessage() for record in package_log.records if "stream:" in record.message]
    count = f"{len(weights)} of {result['appearance'].total} tensors"
    assert len(lines) == 2
    assert lines[0].startswith(f"appearance stream: {count} from {path}; left at start values:")
    assert "roi_heads.action_head.predictor.{weight,bias}" in lines[0]
    assert lines[1] == f"flow stream: starts at random, all {result['flow'].total} tensors"
    assert not [record for record in package_log.records if record.levelname == "WARNING"]


def test_coco_rows_start_the_actors(small_cfg, coco_weights):
    path, weights = coco_weights
    cfg = small_cfg(*BOTTLENECK, "MODEL.WEIGHTS", path)
    model = build_model(cfg)
    load_start_weights(model, cfg)
    names = ["person", "person", "sports ball", "bird", "car", "cat", "dog"]
    box, mask = "roi_heads.box_predictor.", "roi_heads.mask_head.predictor."
    for actor, name in enumerate(names):
        row = COCO.index(name)
        for kind in ("weight", "bias"):
            ours, theirs = model.state_dict(), weights
            score = f"{box}cls_score.{kind}"
            assert torch.equal(ours[score][actor], theirs[score][row])
            delta = f"{box}bbox_pred.{kind}"
            expected = theirs[delta][4 * row : 4 * row + 4]
            assert torch.equal(ours[delta][4 * actor : 4 * actor + 4], expected)
            assert torch.equal(ours[mask + kind][actor], theirs[mask + kind][row])
    score = f"{box}cls_score.weight"
    assert torch.equal(model.state_dict()[score][7], weights[score][80])  # background


def test_class_layers_stay_random_without_coco_rows(small_cfg, coco_weights):
    cfg = small_cfg(*BOTTLENECK, "MODEL.WEIGHTS", coco_weights[0], "MODEL.ACTORS_FROM_COCO", False)
    model = build_model(cfg)
    before = {name: x.clone() for name, x in model.state_dict().items() if class_dependent(name)}
    left = load_start_weights(model, cfg)["appearance"].left
    assert {x for x in left if not x.startswith(ACTION_BRANCH)} == set(before)
    assert all(torch.equal(model.state_dict()[name], x) for name, x in before.items())


def test_actors_without_a_coco_class_keep_their_rows(small_cfg, coco_weights, tmp_path):
    labels = tmp_path / "labels.yaml"
    labels.write_text("actors: [robot, dog]\nactions: [walk, none]\ncoco: {dog: dog}\n")
    cfg = small_cfg(
        *BOTTLENECK,
        *("MODEL.WEIGHTS", coco_weights[0], "DATASETS.LABEL_SPACE", str(labels)),
        *("MODEL.ROI_HEADS.NUM_CLASSES", 2, "MODEL.ROI_ACTION_HEAD.NUM_CLASSES", 2),
    )
    model = build_model(cfg)
    before = model.roi_heads.box_predictor.cls_score.weight.detach().clone()
    load_start_weights(model, cfg)
    after = model.roi_heads.box_predictor.cls_score.weight
    assert torch.equal(after[0], before[0])
    theirs = coco_weights[1]["roi_heads.box_predictor.cls_score.weight"]
    assert torch.equal(after[1:], theirs[[COCO.index("dog"), 80]])


@pytest.mark.parametrize("file", ["caffe2_resnet", "torchvision_resnet"])
@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_imagenet_resnet_fills_the_flow_backbone(small_cfg, request, package_log, file, norm):
    path, weights = request.getfixturevalue(file)
    cfg = small_cfg(*BOTTLENECK, "MODEL.RESNETS.NORM", norm, "MODEL.FLOW.WEIGHTS", path)
    model = build_model(cfg)
    before = {name: x.clone() for name, x in model.backbone.state_dict().items()}
    result = load_start_weights(model, cfg)
    flow = model.flow_backbone.bottom_up.state_dict()
    assert all(torch.equal(flow[name], x) for name, x in weights.items())
    left = [name for name in result["flow"].left if not name.startswith(UNKNOWN_TO_IMAGENET)]
    if file == "caffe2_resnet" and norm == "BN":  # statistics are merged into its weights
        assert left and all("running" in name for name in left)
    else:
        assert not left
    assert result["appearance"].loaded == 0
    assert all(torch.equal(model.backbone.state_dict()[name], x) for name, x in before.items())
    assert not [record for record in package_log.records if record.levelname == "WARNING"]


def test_imagenet_resnet_fills_the_appearance_backbone_alone(small_cfg, caffe2_resnet):
    path, weights = caffe2_resnet
    cfg = small_cfg(*BOTTLENECK, "MODEL.WEIGHTS", path)
    model = build_model(cfg)
    result = load_start_weights(model, cfg)
    ours = model.backbone.bottom_up.state_dict()
    assert all(torch.equal(ours[name], x) for name, x in weights.items())
    assert not [name for name in result["appearance"].left if "bottom_up" in name]
    assert result["flow"].loaded == 0


def test_own_checkpoint_loads_completely(small_cfg, caffe2_resnet, tmp_path):
    model = build_model(small_cfg(*BOTTLENECK))
    model.load_state_dict(randomize(model.state_dict()))
    DetectionCheckpointer(model, str(tmp_path)).save("model_final")
    path = str(tmp_path / "model_final.pth")
    # The trained flow stream wins over start weights that are still in the config.
    cfg = small_cfg(*BOTTLENECK, "MODEL.WEIGHTS", path, "MODEL.FLOW.WEIGHTS", caffe2_resnet[0])
    other = build_model(cfg)
    result = load_start_weights(other, cfg)
    assert not result["appearance"].left and not result["flow"].left
    for name, x in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], x), name


def test_actor_checkpoint_starts_the_action_branch(small_cfg, caffe2_resnet, tmp_path):
    model = build_model(small_cfg(*BOTTLENECK, "MODEL.TRAIN_BRANCH", "actor"))
    DetectionCheckpointer(model, str(tmp_path)).save("actor")
    cfg = small_cfg(
        *BOTTLENECK,
        *("MODEL.WEIGHTS", str(tmp_path / "actor.pth"), "MODEL.FLOW.WEIGHTS", caffe2_resnet[0]),
        *("MODEL.TRAIN_BRANCH", "action"),
    )
    result = load_start_weights(build_model(cfg), cfg)
    assert all(name.startswith(ACTION_BRANCH) for name in result["appearance"].left)
    assert all(name.startswith(UNKNOWN_TO_IMAGENET) for name in result["flow"].left)


def test_empty_keys_load_nothing(small_cfg):
    cfg = small_cfg("MODEL.FLOW.ENABLED", False)
    result = load_start_weights(build_model(cfg), cfg)
    assert set(result) == {"appearance"}
    assert result["appearance"].loaded == 0


@pytest.mark.parametrize("name", ["text.pth", "list.pkl", "numbers.pkl"])
def test_files_that_are_no_checkpoints_are_named(small_cfg, tmp_path, name):
    path = tmp_path / name
    content = {"text": b"junk", "list": pickle.dumps([1]), "numbers": pickle.dumps({"weights": 3})}
    path.write_bytes(content[path.stem])
    cfg = small_cfg("MODEL.WEIGHTS", str(path))
    with pytest.raises(
        ValueError, match=rf"cannot load MODEL.WEIGHTS \(.*{name}\): it is not a ch"
    ):
        load_start_weights(build_model(cfg), cfg)


@pytest.mark.parametrize("key", ["MODEL.WEIGHTS", "MODEL.FLOW.WEIGHTS"])
def test_wrong_files_are_named(small_cfg, tmp_path, key):
    missing = small_cfg(key, str(tmp_path / "none.pkl"))
    model = build_model(missing)
    with pytest.raises(ValueError, match=rf"{key} \(.*none.pkl\): there is no such file; give"):
        load_start_weights(model, missing)
    for content in (b"no pickle", b""):
        (tmp_path / "broken.pkl").write_bytes(content)
        with pytest.raises(ValueError, match=rf"cannot load {key} \(.*broken.pkl\)"):
            load_start_weights(model, small_cfg(key, str(tmp_path / "broken.pkl")))
    unrelated = {"model": {"encoder.weight": np.zeros(3, "f")}, "__author__": "somebody"}
    (tmp_path / "other.pkl").write_bytes(pickle.dumps(unrelated))
    with pytest.raises(ValueError, match=rf"{key} .*fits no tensor"):
        load_start_weights(model, small_cfg(key, str(tmp_path / "other.pkl")))


def test_unknown_coco_class_is_named():
    labels = {"actors": ["robot"], "actions": ["none"], "coco": {"robot": "android"}}
    with pytest.raises(ValueError, match="coco.robot is 'android'"):
        coco_rows(LabelSpace.from_dict(labels))


STOCK = ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.ROI_HEADS.NAME", "CanonicalROIHeads"]
PAIRS = ["MODEL.CLASSES", "pairs", "MODEL.ROI_HEADS.NUM_CLASSES", 43]


def test_coco_rows_start_the_pairs_of_a_stock_model(small_cfg, coco_weights, tmp_path):
    path, weights = coco_weights
    cfg = small_cfg(*BOTTLENECK, *STOCK, *PAIRS, "MODEL.WEIGHTS", path)
    model = build_model(cfg)
    result = load_start_weights(model, cfg)
    assert set(result) == {"appearance"}
    assert not result["appearance"].left and result["appearance"].loaded == len(weights)
    names = dict(zip(LabelSpace.a2d().actors, ["person"] * 2 + ["sports ball"], strict=False))
    box, mask, ours = "roi_heads.box_predictor.", "roi_heads.mask_head.predictor.", {}
    ours = model.state_dict()
    for pair, (actor, _) in enumerate(LabelSpace.a2d().valid_pairs):
        actor = LabelSpace.a2d().actors[actor]
        row = COCO.index(names.get(actor, actor))
        for kind in ("weight", "bias"):
            score, delta = f"{box}cls_score.{kind}", f"{box}bbox_pred.{kind}"
            assert torch.equal(ours[score][pair], weights[score][row])
            expected = weights[delta][4 * row : 4 * row + 4]
            assert torch.equal(ours[delta][4 * pair : 4 * pair + 4], expected)
            assert torch.equal(ours[mask + kind][pair], weights[mask + kind][row])
    assert torch.equal(ours[f"{box}cls_score.bias"][43], weights[f"{box}cls_score.bias"][80])

    # What it has learned is loaded whole, and a model with other classes refuses it.
    DetectionCheckpointer(model, str(tmp_path)).save("model_final")
    trained = ["MODEL.WEIGHTS", str(tmp_path / "model_final.pth")]
    cfg = small_cfg(*BOTTLENECK, *STOCK, *PAIRS, *trained)
    again = build_model(cfg)
    load_trained_weights(again, cfg)
    for name, x in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], x), name
    cfg = small_cfg(*BOTTLENECK, *STOCK, *trained)
    with pytest.raises(ValueError, match=r"lacks 6 tensors of the model, roi_heads"):
        load_trained_weights(build_model(cfg), cfg)


def test_heads_on_fused_features_leave_the_box_head_of_coco(small_cfg, coco_weights):
    path, weights = coco_weights
    cfg = small_cfg(
        *(*BOTTLENECK, *PAIRS, "MODEL.WEIGHTS", path, "MODEL.MASK_ON", False),
        *("MODEL.ROI_HEADS.NAME", "CartesianROIHeads"),
    )
    model = build_model(cfg)
    before = {name: x.clone() for name, x in model.roi_heads.state_dict().items()}
    left = load_start_weights(model, cfg)["appearance"].left
    assert set(left) == {f"roi_heads.{name}" for name in before} | {
        name for name in model.state_dict() if name.startswith("temporal.appearance.")
    }
    assert all(torch.equal(model.roi_heads.state_dict()[name], x) for name, x in before.items())
    assert torch.equal(model.backbone.fpn_output2.weight, weights["backbone.fpn_output2.weight"])
    rpn = "proposal_generator.rpn_head.conv.weight"
    assert torch.equal(model.state_dict()[rpn], weights[rpn])


def test_pairs_of_an_actor_without_a_coco_class_have_no_row():
    labels = LabelSpace.from_dict(
        {
            "actors": ["robot", "dog"],
            "actions": ["walk", "none"],
            "valid": {"robot": ["none"]},
            "coco": {"dog": "dog"},
        }
    )
    dog = COCO.index("dog")
    assert coco_rows(labels) == {1: dog}
    assert coco_rows(labels, "pairs") == {1: dog, 2: dog}
