"""Configuration keys, set-up, and every file under configs/."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model

from a2d_d2 import config
from a2d_d2.config import add_a2d_config, check_device, setup_cfg, system_options

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "configs").rglob("*.yaml"))


def _leaves(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_every_own_key_is_read():
    stock = get_cfg()
    own = stock.clone()
    add_a2d_config(own)
    keys = {key for key, _ in _leaves(own)} - {key for key, _ in _leaves(stock)}
    assert len(keys) > 20
    source = "".join(
        path.read_text() for path in (ROOT / "a2d_d2").rglob("*.py") if path.name != "config.py"
    )
    source += Path(config.__file__).read_text().split("def setup_cfg")[1]
    common = {"ENABLED", "NAME", "WEIGHTS", "LENGTH", "STRIDE", "NUM_CLASSES", "ROOT"}

    def pattern(key):
        """The key as code spells it; a name that others share counts with its parent alone."""
        parent, leaf = key.split(".")[-2:]
        return rf"{parent}\.{leaf}\b" if leaf in common else rf"\.{leaf}\b"

    unread = [key for key in sorted(keys) if not re.search(pattern(key), source)]
    assert not unread


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_builds_a_model(name):
    options = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.FLOW.WEIGHTS", ""]
    cfg = setup_cfg(str(ROOT / name), options)
    model = build_model(cfg)
    assert sum(p.numel() for p in model.parameters()) > 1e6


def test_class_counts_follow_the_label_space(tmp_path):
    path = tmp_path / "zoo.yaml"
    path.write_text("actors: [lion, bear]\nactions: [sleep, roar, none]\n")
    cfg = setup_cfg("", ["DATASETS.LABEL_SPACE", str(path)])
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    assert cfg.MODEL.ROI_ACTION_HEAD.NUM_CLASSES == 3
    assert MetadataCatalog.get("a2d_train").thing_classes == ["lion", "bear"]
    setup_cfg()  # registers A2D's own classes again
    assert len(MetadataCatalog.get("a2d_train").thing_classes) == 7


@pytest.mark.parametrize("option", ["MODEL.FLOW.ENABELD", "INPUT.CLIP"])
def test_a_wrong_key_is_named(option):
    with pytest.raises(ValueError, match=option.split(".")[-1]):
        setup_cfg("", [option, "True"])


def test_a_file_that_is_not_yaml_is_named(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("MODEL: [")
    with pytest.raises(ValueError, match=r"broken\.yaml"):
        setup_cfg(str(path))


def test_a_wrong_key_in_a_file_names_the_file(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("MODEL:\n  FLOWW:\n    ENABLED: false\n")
    with pytest.raises(ValueError, match=r"broken\.yaml.*FLOWW"):
        setup_cfg(str(path))


def test_a_missing_config_file_is_named():
    with pytest.raises((ValueError, OSError), match="nowhere.yaml"):
        setup_cfg("nowhere.yaml")


def test_a_device_that_is_not_there_is_said(monkeypatch):
    said = []
    monkeypatch.setattr(config.logger, "info", lambda text, *values: said.append(text % values))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert setup_cfg("", ["MODEL.DEVICE", "cpu"]).MODEL.DEVICE == "cpu" and not said
    assert setup_cfg("", ["MODEL.DEVICE", "cuda:1"]).MODEL.DEVICE == "cpu"
    assert said == ["MODEL.DEVICE is cuda:1; there is no GPU: on the CPU"]
    check_device("cpu")
    for device in ("cuda", "cuda:7", "mps", "gpu"):
        with pytest.raises(ValueError, match=f"device is {device}, .* not have; use cpu$"):
            check_device(device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device("cuda:1")
    with pytest.raises(ValueError, match="cuda:2, .*; use cpu or cuda or cuda:0 or cuda:1"):
        check_device("cuda:2")


def test_held_out_videos_are_a_data_set_of_their_own(tiny_release):
    setup_cfg("", ["DATASETS.ROOT", str(tiny_release), "DATASETS.HOLD_OUT", "2"])
    train, val = (
        {record["video_id"] for record in DatasetCatalog.get(f"a2d_{split}")}
        for split in ("train", "val")
    )
    assert (len(train), len(val)) == (2, 2)
    assert not train & val
    assert MetadataCatalog.get("a2d_val").split == "val"


# ---------------------------------------------------------------- a system over another base


def test_system_options_by_hand(tmp_path):
    path = tmp_path / "system.yaml"
    path.write_text(
        "_BASE_: somewhere/else.yaml\n"
        "MODEL:\n  FLOW:\n    ENABLED: false\n  TRAIN_BRANCH: separate\n  WEIGHTS: ''\n"
        "  ROI_ACTION_HEAD:\n    EXCLUDED_ACTORS: [cat, dog]\n"
        "SOLVER:\n  BASE_LR: 1e-3\n  STEPS: [10, 20]\nSEED: 3\n"
    )
    options = system_options(path)
    assert options == [
        *("MODEL.FLOW.ENABLED", "False", "MODEL.TRAIN_BRANCH", "separate", "MODEL.WEIGHTS", ""),
        *("MODEL.ROI_ACTION_HEAD.EXCLUDED_ACTORS", "['cat', 'dog']"),
        *("SOLVER.BASE_LR", "1e-3", "SOLVER.STEPS", "[10, 20]", "SEED", "3"),
    ]
    cfg = setup_cfg(opts=options)
    assert cfg.MODEL.FLOW.ENABLED is False and cfg.MODEL.TRAIN_BRANCH == "separate"
    assert cfg.MODEL.ROI_ACTION_HEAD.EXCLUDED_ACTORS == ["cat", "dog"]
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.STEPS, cfg.SEED) == (0.001, (10, 20), 3)


@pytest.mark.parametrize("name", CONFIGS)
def test_system_options_are_what_the_file_changes(name):
    path = ROOT / name
    base = re.search(r"^_BASE_: (.*)$", path.read_text(), flags=re.MULTILINE)
    base = str(path.parent / base[1]) if base else ""
    assert setup_cfg(base, system_options(path)) == setup_cfg(str(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "cannot read"), ("MODEL: [", "bad"), ("- a\n", "holds no keys"), ("", "holds no keys")],
)
def test_a_file_that_is_no_system_is_named(tmp_path, text, words):
    path = tmp_path / "system.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=rf"{words}.*system\.yaml|system\.yaml.*{words}"):
        system_options(path)
