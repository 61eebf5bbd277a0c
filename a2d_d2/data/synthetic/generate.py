"""Writes a synthetic release: plans the videos, renders them in parallel, writes the files."""

import functools
import json
import os
import string
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from a2d_d2.data.release_writer import (
    ANNOTATION_FOLDER,
    CLIP_FOLDER,
    COLOR_MAP_FOLDER,
    VideosetRow,
    write_annotation,
    write_color_map,
    write_videoset,
)
from a2d_d2.data.synthetic.scene import Scene, Stage
from a2d_d2.data.video import write_frames
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.files import write_json
from a2d_d2.utils.parallel import parallel_map

# Changes whenever the same settings give other pixels.
GENERATOR_VERSION = 5
SETTINGS_FILE = "synthetic.json"
FRAMES_PER_SECOND = 24
MIN_FRAMES = 6  # annotated frames lie at multiples of a sixth of the length
MIN_SIDE = 48  # in pixels; the smallest figures are then some ten pixels high

_ID_CHARACTERS = string.ascii_letters + string.digits + "-_"
_ID_LENGTH = 11
_SPLITS = ("train", "test")


@dataclass(frozen=True)
class Settings:
    """What decides the pixels of a release, apart from its number of videos.

    Attributes:
        seed: not negative.
        height, width: of the frames, in pixels.
        num_frames: of each video.
        difficulty: from 0, easy, over 1, the default, to 2, hard.
    """

    seed: int = 0
    height: int = 128
    width: int = 160
    num_frames: int = 24
    difficulty: float = 1.0
    version: int = GENERATOR_VERSION

    def __post_init__(self):
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, but is {self.seed}")
        if min(self.height, self.width) < MIN_SIDE or self.height % 2 or self.width % 2:
            size = f"{self.height} and {self.width}"
            raise ValueError(f"height and width must be even and at least {MIN_SIDE}, not {size}")
        if self.num_frames < MIN_FRAMES:
            raise ValueError(f"a video needs at least {MIN_FRAMES} frames, not {self.num_frames}")
        if not 0 <= self.difficulty <= 2:
            raise ValueError(f"difficulty must lie in 0 to 2, but is {self.difficulty}")


@dataclass(frozen=True)
class VideoPlan:
    """What a video shows.

    Attributes:
        video_id: 11 characters.
        split: "train" or "test".
        index: of the video in its split.
        pairs: (actor, action) indices, from back to front.
        annotated: 1-based frame numbers, ascending.
    """

    video_id: str
    split: str
    index: int
    pairs: tuple[tuple[int, int], ...]
    annotated: tuple[int, ...]


def make_release(
    root: str | os.PathLike,
    num_train: int,
    num_test: int,
    seed: int = 0,
    height: int = 128,
    width: int = 160,
    num_frames: int = 24,
    difficulty: float = 1.0,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Writes a release of synthetic videos in the official A2D layout.

    The same arguments give the same pixels and annotations, whatever the number of workers. Videos
    that an earlier call with the same settings finished are kept, so an interrupted call can be
    repeated, and a larger number of videos extends a release.

    Args:
        root: folder that gets ``videoset.csv``, written last; new, empty, or of the same settings.
        num_train, num_test: numbers of videos.
        seed, height, width, num_frames, difficulty: see :class:`Settings`.
        workers: processes; None uses every core.
        progress: show a progress bar.

    Raises:
        ValueError: an argument is out of range, or ``root`` holds something else.
    """
    root = Path(root)
    settings = Settings(seed, height, width, num_frames, float(difficulty))
    if min(num_train, num_test) < 0:
        raise ValueError(f"numbers of videos must not be negative: {num_train}, {num_test}")
    _claim(root, settings)
    plans = plan_videos(settings, "train", num_train) + plan_videos(settings, "test", num_test)
    rows = parallel_map(
        functools.partial(write_video, root, settings),
        plans,
        workers=workers,
        description="synthetic videos",
        unit="video",
        progress=progress,
    )
    write_videoset(root, list(rows))


def plan_videos(settings: Settings, split: str, count: int) -> list[VideoPlan]:
    """What the first ``count`` videos of a split show; a longer plan starts with a shorter one.

    The pairs come from a deck of all valid pairs that is shuffled anew whenever it is used up, so
    each occurs equally often, give or take one.
    """
    rng = np.random.default_rng([settings.seed, _SPLITS.index(split)])
    deck = _deck(rng)
    plans = []
    for index in range(count):
        num_actors = rng.choice(4, p=[0.5, 0.34, 0.12, 0.04]) + 1
        num_annotated = rng.choice([3, 4, 5], p=[0.8, 0.1, 0.1])
        sixths = np.sort(rng.choice(5, num_annotated, replace=False) + 1)
        plans.append(
            VideoPlan(
                video_id=_video_id(index, rng),
                split=split,
                index=index,
                pairs=tuple(next(deck) for _ in range(num_actors)),
                annotated=tuple((settings.num_frames // 6 * sixths).tolist()),
            )
        )
    return plans


def write_video(root: Path, settings: Settings, plan: VideoPlan) -> VideosetRow:
    """Writes the files of one video unless they are all there; returns its line of videoset.csv.

    The clip is written last: where it stands, the video is complete.
    """
    label_space = LabelSpace.a2d()
    joint_ids = [label_space.joint_id(*pair) for pair in plan.pairs]
    clip = root / CLIP_FOLDER / f"{plan.video_id}.mp4"
    annotations = [
        (
            root / ANNOTATION_FOLDER / plan.video_id / f"{number:05d}.mat",
            root / COLOR_MAP_FOLDER / plan.video_id / f"{number:05d}.png",
        )
        for number in plan.annotated
    ]
    if not all(path.exists() for paths in annotations for path in (*paths, clip)):
        scene, shown = stage_scene(settings, plan)
        for number, (mat, png) in zip(plan.annotated, annotations, strict=True):
            _, masks = shown[number]
            label_map = np.tensordot(joint_ids, masks, axes=1)
            write_annotation(mat, label_map, masks, joint_ids, label_space)
            write_color_map(png, label_map, label_space)
        numbers = range(1, settings.num_frames + 1)
        frames = (shown[n][0] if n in shown else scene.render(n - 1)[0] for n in numbers)
        write_frames(clip, frames, FRAMES_PER_SECOND)
    return VideosetRow(
        video_id=plan.video_id,
        label=joint_ids[0],
        start=0.0,
        end=settings.num_frames / FRAMES_PER_SECOND,
        height=settings.height,
        width=settings.width,
        num_frames=settings.num_frames,
        num_annotated=len(plan.annotated),
        split=plan.split,
    )


def stage_scene(
    settings: Settings, plan: VideoPlan
) -> tuple[Scene, dict[int, tuple[np.ndarray, np.ndarray]]]:
    """A scene of the plan in which every actor can be seen in every annotated frame.

    Scenes are drawn until one will do, with ever smaller actors. Also returns the annotated frames,
    1-based number to (frame, masks).
    """
    label_space = LabelSpace.a2d()
    names = [(label_space.actors[i], label_space.actions[j]) for i, j in plan.pairs]
    stage = Stage(settings.height, settings.width, settings.difficulty)
    seed = [settings.seed, _SPLITS.index(plan.split), plan.index]
    attempt = 0
    while True:
        scene = Scene(names, stage, [*seed, attempt], shrink=0.98**attempt)
        shown = {}
        for number in plan.annotated:
            frame, masks, visible = scene.render(number - 1)
            if visible.min() < stage.min_visible:
                break
            shown[number] = frame, masks
        if len(shown) == len(plan.annotated):
            return scene, shown
        attempt += 1


def _claim(root: Path, settings: Settings) -> None:
    """Marks ``root`` as a release of these settings, or says what else it is."""
    marker = root / SETTINGS_FILE
    if marker.exists():
        try:
            found = dict(json.loads(marker.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{marker} is damaged; remove {root} or choose another") from error
        wanted = asdict(settings)
        different = [key for key in wanted if found.get(key) != wanted[key]]
        if different:
            details = ", ".join(f"{key} {found.get(key)}, not {wanted[key]}" for key in different)
            raise ValueError(
                f"{root} holds a synthetic release of other settings ({details});"
                " remove it or choose another folder"
            )
    elif root.is_dir() and any(root.iterdir()):
        raise ValueError(
            f"{root} holds something that is no synthetic release; choose a new folder"
        )
    else:
        write_json(marker, asdict(settings))


def _deck(rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    pairs = LabelSpace.a2d().valid_pairs
    while True:
        for i in rng.permutation(len(pairs)):
            yield pairs[i]


def _video_id(index: int, rng: np.random.Generator) -> str:
    """Like YouTube's; of every eight one starts with a hyphen and one with an underscore."""
    characters = [_ID_CHARACTERS[i] for i in rng.integers(len(_ID_CHARACTERS), size=_ID_LENGTH)]
    first = {1: "-", 5: "_"}.get(index % 8)
    return (first or characters[0]) + "".join(characters[1:])
