"""Configuration keys, set-up, and every file under configs/."""

import re
from pathlib import Path

import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from a2d_d2 import config
from a2d_d2.config import add_a2d_config, setup_cfg

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
