"""Clips of a generated release, as the configured loaders give them."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from detectron2.config import CfgNode

from a2d_d2.config import setup_cfg
from a2d_d2.data.clip_cache import prepare_clips
from a2d_d2.data.synthetic import make_release
from a2d_d2.modeling.system import predicts_actions, takes_clips

NUM_TRAIN, NUM_TEST, NUM_FRAMES = 8, 2, 24  # videos, and the frames of each


@contextlib.contextmanager
def generated_clips(
    config_file: str, options: Sequence[str], *, height: int, width: int, progress: bool
) -> Iterator[CfgNode]:
    """The configuration with a generated release and its cache of clips, while the block runs.

    Args:
        config_file, options: of the model; no weights are loaded.
        height, width: of the videos, in pixels; the network sees them as the configuration resizes
            them.
        progress: shows progress bars.

    Raises:
        ValueError: the configuration is wrong, or not of a model of clips with actions.
    """
    check_takes_clips(setup_cfg(config_file, options))  # a mistake is said before anything runs
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder) / "A2D", Path(folder) / "cache"
        make_release(
            root,
            NUM_TRAIN,
            NUM_TEST,
            height=height,
            width=width,
            num_frames=NUM_FRAMES,
            progress=progress,
        )
        paths = ["DATASETS.ROOT", str(root), "INPUT.CLIP.CACHE", str(cache)]
        names = ["DATASETS.TRAIN", "('a2d_train',)", "DATASETS.TEST", "('a2d_test',)"]
        cfg = setup_cfg(config_file, [*options, *paths[:2], *names, "INPUT.CLIP.CACHE", ""])
        prepare_clips(
            root,
            cache,
            flow_method=cfg.INPUT.FLOW_METHOD,
            length=cfg.INPUT.CLIP.LENGTH,
            stride=cfg.INPUT.CLIP.STRIDE,
            progress=progress,
        )
        yield setup_cfg(config_file, [*options, *paths, *names])


def check_takes_clips(cfg: CfgNode) -> None:
    """ValueError when the model takes single frames or has no action branch."""
    if not takes_clips(cfg) or not predicts_actions(cfg):
        raise ValueError(
            f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} with MODEL.TRAIN_BRANCH "
            f"{cfg.MODEL.TRAIN_BRANCH}: only a model of clips with an action branch is measured; "
            "give such a --config-file"
        )
