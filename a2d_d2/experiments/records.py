"""Records: one small file a finished run, from which every table and picture is made.

``DIR/records/<system>-seed<k>.json`` is written last and at once. It holds the settings, where and
with what the run was made, and its figures. A record that is there is never made again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from detectron2.config import CfgNode, get_cfg

from a2d_d2.config import add_a2d_config
from a2d_d2.data.layout import annotated_frames, read_videoset
from a2d_d2.data.release import split_videos
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.files import write_json

VERSION = 1
# Keys that say where a run is made, not what it is.
_PLACE_KEYS = (
    "OUTPUT_DIR",
    "DATASETS.ROOT",
    "DATASETS.LABEL_SPACE",  # a path; what it holds is part of the settings
    "INPUT.CLIP.CACHE",
    "MODEL.DEVICE",
    "DATALOADER.NUM_WORKERS",
)
# What every record has.
_PARTS = {
    **dict.fromkeys(("system", "experiment", "digest", "base"), str),
    "seed": int,
    **dict.fromkeys(("label_space", "data", "figures", "config", "training", "machine"), dict),
}
_REMEDY = "copy it again, or delete it and run the experiments again"
# The real A2D: training and test videos.
_A2D_VIDEOS = (3036, 746)


def file_name(system: str, seed: int) -> str:
    """The name of a run, good for a file whatever characters the system's has."""
    return f"{quote(system, safe='')}-seed{seed}"


def flatten(config: CfgNode | Mapping, prefix: str = "") -> dict:
    """A configuration as key to value, without the keys that say where a run is made."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif prefix + key not in _PLACE_KEYS:
            flat[prefix + key] = value
    return json.loads(json.dumps(flat))  # tuples become lists, as they are when read again


def without_places(options: Sequence[str]) -> list[str]:
    """KEY VALUE pairs without those that say where a run is made."""
    pairs = zip(options[::2], options[1::2], strict=True)
    return [text for pair in pairs if pair[0] not in _PLACE_KEYS for text in pair]


def changed_keys(flat: Mapping) -> dict:
    """The keys of a flattened configuration that are not at their default.

    They tell settings apart; a key that a later version adds leaves old records valid.
    """
    defaults = get_cfg()
    add_a2d_config(defaults)
    of_default = flatten(defaults)
    return {key: value for key, value in flat.items() if value != of_default.get(key)}


def digest(value: Mapping) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def describe_data(root: str | Path, label_space: LabelSpace, hold_out: int) -> dict:
    """What a release is: numbers of videos and frames, and digests that tell it from another."""
    root = Path(root)
    videos = read_videoset(root)
    by_split = {
        split: split_videos(videos, split, hold_out)
        for split in ("train", *(["val"] if hold_out else []), "test")
    }
    synthetic = root / "synthetic.json"
    generated = json.loads(synthetic.read_text(encoding="utf-8")) if synthetic.exists() else None
    counts = (
        len(by_split["train"]) + len(by_split.get("val", [])),
        len(by_split["test"]),
    )
    rows = sorted(
        [video.video_id, video.split, video.height, video.width, video.num_frames]
        for video in videos
    )
    return {
        "label_space": label_space.name,
        "videos": {split: len(of_split) for split, of_split in by_split.items()},
        "frames": {
            split: sum(len(annotated_frames(root, video.video_id)) for video in of_split)
            for split, of_split in by_split.items()
        },
        "hold_out": hold_out,
        "synthetic": generated,
        "is_a2d": generated is None and counts == _A2D_VIDEOS and label_space == LabelSpace.a2d(),
        "videos_sha256": digest({"videos": rows}),
    }


def write_record(folder: Path, record: Mapping) -> None:
    """Writes a record into ``DIR/records``, atomically."""
    write_json(folder / f"{file_name(record['system'], record['seed'])}.json", record)


def read_record(path: Path) -> dict:
    """Reads a record.

    Raises:
        ValueError: the file is no record; names it.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        known = record["version"] == VERSION
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no record of a run; delete it") from error
    if not known:
        raise ValueError(
            f"{path} was written by another version of a2d_d2; make it again elsewhere"
        )
    wrong = [name for name, kind in _PARTS.items() if not isinstance(record.get(name), kind)]
    if wrong:
        raise ValueError(f"{path} is no whole record of a run ({wrong[0]}); {_REMEDY}")
    return record


def read_records(folder: Path, check: Callable[[dict], object] | None = None) -> list[dict]:
    """All records of a folder, by system and seed.

    Args:
        folder: of the files.
        check: does with each record alone what is to be done with all; what is not whole makes it
            fail.

    Raises:
        ValueError: there is none, one is not whole, or two were made with different settings.
    """
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise ValueError(f"{folder} holds no record; run the experiments first")
    records = [read_record(path) for path in paths]
    for path, record in zip(paths, records, strict=True):
        try:
            if check is not None:
                check(record)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(
                f"{path} is no whole record of a run ({error!r}); {_REMEDY}"
            ) from error
        if record["experiment"] != records[0]["experiment"]:
            raise ValueError(
                f"{path} and {paths[0].name} were made with different settings (base, options, "
                "hold-out or data) and are not mixed; keep each kind in its own --output"
            )
    return sorted(records, key=lambda record: (record["system"], record["seed"]))
