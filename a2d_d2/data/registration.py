"""Registers releases with Detectron2's catalogs."""

import os
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from a2d_d2.data.release import load_release
from a2d_d2.label_space import LabelSpace


def default_root() -> Path:
    """``$DETECTRON2_DATASETS/A2D/Release``; the variable defaults to ``datasets``."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")) / "A2D" / "Release"


def register_release(
    name: str, root: str | os.PathLike, split: str, label_space: LabelSpace, hold_out: int = 0
) -> None:
    """Registers a split of a release under ``name``; reads no file.

    Registering a name again replaces what it stood for. A missing root is an error only when the
    data set is first loaded.

    Args:
        name: in Detectron2's catalogs, as in ``cfg.DATASETS.TRAIN``.
        root: folder that holds videoset.csv; "" means :func:`default_root`.
        split: "train", "val" or "test".
        label_space: of the annotations.
        hold_out: of :func:`a2d_d2.data.release.split_videos`.
    """
    root = str(root or default_root())
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, lambda: load_release(root, split, label_space, hold_out=hold_out))
    MetadataCatalog.get(name).set(
        thing_classes=list(label_space.actors),
        action_classes=list(label_space.actions),
        label_space=label_space,
        root=root,
        split=split,
        evaluator_type="a2d",
    )
