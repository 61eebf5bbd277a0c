"""Pictures of the clips that the mapper feeds the network."""

from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog, get_detection_dataset_dicts
from detectron2.utils.env import seed_all_rng
from tqdm import tqdm

from a2d_d2.data.build import check_registered, train_records
from a2d_d2.data.mapper import ClipDatasetMapper
from a2d_d2.visualization.canvas import write_picture
from a2d_d2.visualization.panels import clip_panel


def draw_clips(
    cfg: CfgNode, split: str, count: int, folder: Path, progress: bool = True
) -> list[Path]:
    """Draws clips of ``DATASETS.TRAIN`` or ``DATASETS.TEST`` as the network gets them.

    Args:
        cfg: of the training run. The same ``SEED`` gives the same pictures; below 0 counts as 0.
        split: "train" (augmented, with annotations) or "test" (as an evaluation gets them).
        count: number of clips, evenly spaced over the data set.
        folder: gets ``<vid>_<%05d>.png`` for each, named by its annotated frame.
        progress: shows a progress bar.

    Returns:
        The paths of the pictures.
    """
    names = cfg.DATASETS.TRAIN if split == "train" else cfg.DATASETS.TEST
    if not names:
        raise ValueError(
            f"DATASETS.{split.upper()} names no data set; give --config-file, or the key"
        )
    if split == "train":
        records = train_records(cfg)
    else:
        check_registered("DATASETS.TEST", names)
        records = get_detection_dataset_dicts(names, filter_empty=False)
    label_space = MetadataCatalog.get(names[0]).label_space
    mapper = ClipDatasetMapper(cfg, is_train=split == "train")
    seed_all_rng(max(0, cfg.SEED))
    chosen = np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int)
    paths = []
    for i in tqdm(chosen, desc="clips", unit="clip", disable=not progress):
        clip = mapper(records[i])
        path = folder / f"{clip['video_id']}_{clip['frame_index'] + 1:05d}.png"
        write_picture(path, clip_panel(clip, label_space))
        paths.append(path)
    return paths
