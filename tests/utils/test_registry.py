import pytest
from detectron2.config import CfgNode
from detectron2.utils.registry import Registry

from a2d_d2.config import setup_cfg
from a2d_d2.modeling.fusion import build_fusion
from a2d_d2.utils.registry import registered


def test_a_name_gives_what_is_registered():
    registry = Registry("THINGS")
    registry.register(test_a_name_gives_what_is_registered)
    name = test_a_name_gives_what_is_registered.__name__
    assert registered(registry, "KEY", name) is test_a_name_gives_what_is_registered
    with pytest.raises(ValueError, match=f"KEY is 'Foo'; it must be one of {name}"):
        registered(registry, "KEY", "Foo")


def test_wrong_names_in_the_configuration():
    with pytest.raises(ValueError, match="MODEL.BACKBONE.NAME is 'Foo'; it must be one of build"):
        setup_cfg("configs/synthetic/R18_FPN.yaml", ["MODEL.BACKBONE.NAME", "Foo"])
    cfg = CfgNode({"MODEL": {"FUSION": {"NAME": "Foo"}}})
    with pytest.raises(ValueError, match="MODEL.FUSION.NAME is 'Foo'; .*ConcatFusion"):
        build_fusion(cfg, [])
