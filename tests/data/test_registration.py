"""Names in Detectron2's catalogs."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from a2d_d2.data.registration import register_release
from a2d_d2.data.release import ReleaseError, load_release
from a2d_d2.label_space import LabelSpace

A2D = LabelSpace.a2d()
NAME = "registration_of_a_test"


@pytest.fixture(autouse=True)
def clean_catalogs():
    yield
    if NAME in DatasetCatalog:
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


def test_name_gives_records_and_metadata(tiny_release):
    register_release(NAME, tiny_release, "test", A2D)
    assert DatasetCatalog.get(NAME) == load_release(tiny_release, "test", A2D)
    metadata = MetadataCatalog.get(NAME)
    assert metadata.thing_classes == list(A2D.actors)
    assert metadata.action_classes == list(A2D.actions)
    assert metadata.label_space is A2D
    assert (metadata.root, metadata.split) == (str(tiny_release), "test")
    assert metadata.evaluator_type == "a2d"


def test_registering_again_replaces(tiny_release, tmp_path):
    register_release(NAME, tmp_path, "test", A2D)
    space = LabelSpace.from_dict({"actors": ["a"], "actions": ["b"]})
    register_release(NAME, tmp_path, "train", space)
    assert MetadataCatalog.get(NAME).thing_classes == ["a"]
    register_release(NAME, tiny_release, "train", A2D)
    register_release(NAME, tiny_release, "train", A2D)
    assert {record["video_id"] for record in DatasetCatalog.get(NAME)}
    assert MetadataCatalog.get(NAME).split == "train"


@pytest.mark.parametrize("variable", [None, "/data"])
def test_default_root(monkeypatch, variable):
    if variable:
        monkeypatch.setenv("DETECTRON2_DATASETS", variable)
    else:
        monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    register_release(NAME, "", "train", A2D)
    assert MetadataCatalog.get(NAME).root == f"{variable or 'datasets'}/A2D/Release"


def test_missing_root_shows_when_loaded(tmp_path):
    register_release(NAME, tmp_path / "nowhere", "train", A2D)
    with pytest.raises(ReleaseError, match="nowhere/videoset.csv.*datasets/README.md"):
        DatasetCatalog.get(NAME)
