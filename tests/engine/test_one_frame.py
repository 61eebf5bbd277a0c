"""A video of one frame, from its file through mapper and network."""

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from a2d_d2.config import setup_cfg
from a2d_d2.data.mapper import ClipDatasetMapper
from a2d_d2.data.release_writer import VideosetRow, write_annotation, write_videoset
from a2d_d2.label_space import LabelSpace


@pytest.fixture
def one_frame_release(tmp_path):
    root = tmp_path / "A2D"
    (root / "clips320H").mkdir(parents=True)
    frame = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    fourcc = cv2.VideoWriter_fourcc(*"mp4v")
    for name in ("onetrain000", "onetest0000"):
        writer = cv2.VideoWriter(str(root / "clips320H" / f"{name}.mp4"), fourcc, 24, (80, 64))
        writer.write(frame)
        writer.release()
        mask = np.zeros((1, 64, 80), dtype=bool)
        mask[0, 10:40, 20:60] = True
        write_annotation(
            root / "Annotations" / "mat" / name / "00001.mat",
            np.where(mask[0], 77, 0),
            mask,
            [77],
            LabelSpace.a2d(),
        )
    rows = [
        VideosetRow(
            video_id=name,
            label=77,
            start=0,
            end=0.04,
            height=64,
            width=80,
            num_frames=1,
            num_annotated=1,
            split=split,
        )
        for name, split in (("onetrain000", "train"), ("onetest0000", "test"))
    ]
    write_videoset(root, rows)
    return root


def test_it_trains_and_predicts(one_frame_release, tiny_options):
    cfg = setup_cfg(
        "configs/synthetic/R18_FPN.yaml",
        [*tiny_options, "DATASETS.ROOT", str(one_frame_release)],
    )
    model = build_model(cfg)
    (record,) = DatasetCatalog.get("a2d_train")
    clip = ClipDatasetMapper(cfg, is_train=True)(record)
    assert clip["neighbours"].tolist() == [[-1, 0, -1]]
    assert not clip["flow"].any()  # the first frame of a video has zero flow
    with EventStorage(0):
        losses = model.train()([clip])
    assert all(torch.isfinite(loss) for loss in losses.values())
    (record,) = DatasetCatalog.get("a2d_test")
    with torch.no_grad():
        (output,) = model.eval()([ClipDatasetMapper(cfg, is_train=False)(record)])
    assert output["instances"].image_size == (64, 80)
