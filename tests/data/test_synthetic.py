"""The synthetic release: its layout, its determinism, and that no still gives an action away."""

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from a2d_d2.data.synthetic import make_release
from a2d_d2.data.synthetic.generate import Settings, plan_videos, stage_scene
from a2d_d2.data.synthetic.motions import Body, phase_rates, pose_at, random_phases
from a2d_d2.data.synthetic.pictures import write_pictures
from a2d_d2.data.synthetic.scene import Camera, Scene, Stage
from a2d_d2.label_space import LabelSpace

A2D = LabelSpace.a2d()
SMALL = {"height": 64, "width": 80, "num_frames": 12, "workers": 1, "progress": False}
STILL = Stage(128, 160, difficulty=0.0)
BODY = Body(size=44.0, scale=1.0, x_range=(20.0, 140.0), y_range=(20.0, 108.0), round=False)


def files_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic") / "Release"
    make_release(root, 8, 3, seed=4, **SMALL)
    return root


# ------------------------------------------------------------------------- layout


def test_layout(release):
    with open(release / "videoset.csv", newline="") as stream:
        rows = list(csv.reader(stream))
    assert [row[8] for row in rows] == ["0"] * 8 + ["1"] * 3
    for video_id, label, _, _, height, width, num_frames, num_annotated, _ in rows:
        assert A2D.is_valid_id(int(label))
        assert (height, width, num_frames) == ("64", "80", "12")
        video = cv2.VideoCapture(str(release / f"clips320H/{video_id}.mp4"))
        frames = [video.read()[1] for _ in range(12)]
        assert all(frame.shape == (64, 80, 3) for frame in frames)
        assert not video.read()[0]
        mats = sorted((release / "Annotations/mat" / video_id).iterdir())
        assert len(mats) == int(num_annotated)
        assert {int(mat.stem) for mat in mats} <= {2, 4, 6, 8, 10}
        for mat in mats:
            check_annotation(mat, release / f"Annotations/col/{video_id}/{mat.stem}.png")


def check_annotation(mat: Path, png: Path):
    with h5py.File(mat) as file:
        label_map, masks = file["reS_id"][()].T, file["reMask"][()].swapaxes(-1, -2)
        ids, boxes = file["id"][0].astype(int), file["reBBox"][()].T
    assert (masks.ndim == 2) == (len(ids) == 1)
    masks = masks.reshape(-1, 64, 80).astype(bool)
    assert masks.sum(axis=0).max() <= 1
    assert (label_map == sum(i * mask for i, mask in zip(ids, masks, strict=True))).all()
    for mask, (x1, y1, x2, y2), joint_id in zip(masks, boxes.astype(int), ids, strict=True):
        assert A2D.is_valid_id(joint_id)
        inside = mask[y1 - 1 : y2, x1 - 1 : x2]
        assert inside.sum() == mask.sum() > 0
        assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
    assert (cv2.imread(str(png))[..., ::-1] == A2D.palette[label_map]).all()


def test_video_ids():
    ids = [plan.video_id for plan in plan_videos(Settings(), "train", 100)]
    assert len(set(ids)) == 100
    assert all(len(i) == 11 and i.isascii() for i in ids)
    assert all(c.isalnum() or c in "-_" for i in ids for c in i)
    assert sum(i[0] == "-" for i in ids) >= 12
    assert sum(i[0] == "_" for i in ids) >= 12


def test_pairs_are_valid_and_equally_frequent():
    plans = plan_videos(Settings(), "train", 200)
    counts = Counter(pair for plan in plans for pair in plan.pairs)
    assert set(counts) == set(A2D.valid_pairs)
    assert max(counts.values()) - min(counts.values()) <= 1
    sizes = Counter(len(plan.pairs) for plan in plans)
    assert set(sizes) == {1, 2, 3, 4}
    assert sizes[1] + sizes[2] > 150
    assert {len(plan.annotated) for plan in plans} == {3, 4, 5}


# ------------------------------------------------------------------------- determinism


def test_workers_do_not_change_the_release(release, tmp_path):
    make_release(tmp_path, 8, 3, seed=4, **(SMALL | {"workers": 2}))
    assert files_of(tmp_path) == files_of(release)


def test_seed_changes_the_release():
    first, second = (plan_videos(Settings(seed=s), "train", 5) for s in (0, 1))
    assert not {p.video_id for p in first} & {p.video_id for p in second}
    frames = [stage_scene(Settings(seed=s), first[0])[0].render(0)[0] for s in (0, 1)]
    assert (frames[0] != frames[1]).any()


def test_resumes_and_extends(tmp_path):
    make_release(tmp_path, 2, 1, seed=4, **SMALL)
    before = files_of(tmp_path)
    clips = sorted((tmp_path / "clips320H").iterdir())
    clips[0].unlink()
    kept = clips[1].stat().st_mtime_ns
    make_release(tmp_path, 2, 1, seed=4, **SMALL)
    assert files_of(tmp_path) == before
    assert clips[1].stat().st_mtime_ns == kept

    make_release(tmp_path, 3, 1, seed=4, **SMALL)
    after = files_of(tmp_path)
    assert all(after[name] == before[name] for name in before if name != "videoset.csv")
    assert len(after["videoset.csv"].splitlines()) == 4


def test_refuses_a_folder_of_something_else(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="no synthetic release"):
        make_release(tmp_path, 1, 0, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_refuses_a_release_of_other_settings(tmp_path):
    make_release(tmp_path, 1, 0, seed=1, **SMALL)
    with pytest.raises(ValueError, match="seed 1, not 2"):
        make_release(tmp_path, 1, 0, seed=2, **SMALL)
    (tmp_path / "synthetic.json").write_text("{")
    with pytest.raises(ValueError, match=r"synthetic\.json is damaged"):
        make_release(tmp_path, 1, 0, seed=1, **SMALL)


@pytest.mark.parametrize(
    "bad", [{"height": 65}, {"width": 16}, {"num_frames": 5}, {"difficulty": 3}, {"seed": -1}]
)
def test_refuses_bad_settings(tmp_path, bad):
    with pytest.raises(ValueError, match=str(next(iter(bad.values())))):
        make_release(tmp_path / "new", 1, 0, **(SMALL | bad))
    assert not (tmp_path / "new").exists()


def test_command_line(tmp_path):
    tool = Path(__file__).parents[2] / "tools" / "make_synthetic_a2d.py"
    command = [sys.executable, str(tool), "--output", str(tmp_path / "R"), "--train", "1"]
    command += ["--test", "0", "--height", "64", "--width", "80", "--frames", "6"]
    subprocess.run(command, check=True, capture_output=True)
    settings = json.loads((tmp_path / "R/synthetic.json").read_text())
    assert settings["num_frames"] == 6 and settings["difficulty"] == 1.0
    empty = subprocess.run([*command, "--train", "0"], capture_output=True, text=True)
    assert empty.returncode == 2
    assert "no release without videos" in empty.stderr.splitlines()[-1]
    again = subprocess.run([*command, "--seed", "9"], capture_output=True, text=True)
    assert again.returncode == 2
    assert "other settings" in again.stderr.splitlines()[-1]
    assert "Traceback" not in again.stderr


# ------------------------------------------------------------------------- masks


@pytest.mark.parametrize("kind", A2D.actors)
def test_masks_are_the_drawn_pixels(kind):
    with_actor, masks, visible = Scene([(kind, "none")], STILL, [2]).render(3)
    without, _, _ = Scene([], STILL, [2]).render(3)
    changed = (with_actor != without).any(axis=-1)
    near = cv2.dilate(masks[0].astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    assert not (changed & ~near).any()
    assert changed[masks[0]].mean() > 0.97
    assert visible[0] > 0.95  # at most the frame's edge cuts a little off


def test_front_actors_hide_back_ones():
    hidden = [
        Scene([("dog", "none")] + [("car", "none")] * n, STILL, [2]).render(0) for n in (0, 3)
    ]
    (_, (alone,), inside), (_, (dog, *cars), visible) = hidden
    covered = np.any(cars, axis=0)
    assert (alone & covered).any(), "the seed must make them overlap"
    assert (dog == (alone & ~covered)).all()
    assert visible[0] == pytest.approx(inside[0] * dog.sum() / alone.sum(), rel=1e-9)


@pytest.mark.parametrize("difficulty", [0.0, 1.0, 2.0])
def test_annotated_actors_can_be_seen(difficulty):
    settings = Settings(seed=2, difficulty=difficulty)
    least = Stage(128, 160, difficulty).min_visible
    crowds = [p for p in plan_videos(settings, "test", 60) if len(p.pairs) >= 3][:4]
    for plan in crowds:
        scene, shown = stage_scene(settings, plan)
        assert tuple(shown) == plan.annotated
        for number in plan.annotated:
            _, masks, visible = scene.render(number - 1)
            assert (masks == shown[number][1]).all()
            assert visible.min() >= least
            assert masks.sum(axis=(1, 2)).min() >= 30


# ------------------------------------------------------------------------- motions


def steps(action: str, count: int = 40) -> list[np.ndarray]:
    """Poses (x, y, angle, bow) of one frame and the next two, from ``count`` starting points."""
    rng = np.random.default_rng(0)
    result = []
    for _ in range(count):
        phases = random_phases(rng)
        rates = phase_rates(action, BODY, phases, rng)
        poses = [pose_at(phases + t * rates, BODY) for t in range(3)]
        result.append(np.array([[p.x, p.y, p.angle, p.bow, p.stretch] for p in poses]))
    return np.array(result)


def test_each_action_moves_its_own_way():
    speed = {a: np.abs(np.diff(steps(a), axis=1)).mean(axis=(0, 1)) for a in A2D.actions}
    x, y, angle, bow, stretch = range(5)
    assert not speed["none"].any()
    moving = {a: {i for i in range(5) if speed[a][i] > 1e-9} for a in A2D.actions}
    assert moving == {
        "climbing": {y},
        "crawling": {x, stretch},
        "eating": {bow},
        "flying": {x, y},
        "jumping": {y},
        "rolling": {x, angle},
        "running": {x},
        "walking": {x},
        "none": set(),
    }
    assert 1.5 < speed["walking"][x] < 2.5 and speed["running"][x] > 2 * speed["walking"][x]
    head = 0.7 * BODY.size * np.radians(speed["eating"][bow])
    assert 2.0 < head < 6.0, "pixels a frame of a nodding head"


def test_only_acceleration_tells_a_jump_from_a_climb():
    jump, climb = (steps(a, 200)[..., 1] for a in ("jumping", "climbing"))
    first_jump, first_climb = jump[:, 1] - jump[:, 0], climb[:, 1] - climb[:, 0]
    alike = np.abs(np.abs(first_jump) - np.abs(first_climb).mean()) < 0.5
    assert alike.sum() > 20
    assert np.median(np.abs(np.diff(climb, n=2, axis=1))) < 0.01
    assert (np.abs(np.diff(jump[alike], n=2, axis=1)) > 0.5).mean() > 0.95


def camera_paces(difficulty, count):
    """Pixels a frame that the views of ``count`` cameras move, each step of a video by itself."""
    rng = np.random.default_rng(1)
    cameras = [Camera(Stage(128, 160, difficulty), rng) for _ in range(count)]
    ways = np.array([[camera.position(t) for t in range(24)] for camera in cameras])
    assert all(np.abs(w).max() <= c.reach for w, c in zip(ways, cameras, strict=True))
    return np.linalg.norm(np.diff(ways, axis=1), axis=-1)


def test_the_camera_moves_with_the_difficulty():
    paces = [camera_paces(difficulty, 20).mean() for difficulty in (0.0, 1.0, 2.0)]
    assert paces[0] == 0
    assert 0.6 < paces[1] < 2.0
    assert paces[2] == pytest.approx(2 * paces[1], rel=0.05)


def test_the_documented_table_of_difficulties_is_right():
    text = Path("docs/synthetic.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip("* ") for cell in line.strip("|").split("|")]
        for line in text.split("## Difficulty")[1].splitlines()
        if line.startswith("|")
    ][2:]
    assert [row[0].split(",")[0] for row in rows] == ["0", "0.5", "1", "1.5", "2"]
    for name, pace, distractors, sizes, visible in rows:
        difficulty = float(name.split(",")[0])
        stage = Stage(128, 160, difficulty)
        assert float(pace) == pytest.approx(camera_paces(difficulty, 400).mean(), abs=0.06)
        assert [float(x) for x in distractors.split(",")] == pytest.approx(
            [0.7 * difficulty, 0.25 * difficulty], abs=0.006
        )
        assert tuple(map(float, sizes.split(" to "))) == stage.size_range
        assert float(visible.removesuffix(" %")) == pytest.approx(100 * stage.min_visible, abs=0.6)


# ------------------------------------------------------------------------- no leak


def test_first_frame_is_the_same_for_all_actions():
    stage = Stage(64, 80, difficulty=1.0)
    for kind in A2D.actors:
        frames = [Scene([(kind, a)], stage, [3]).render(0)[0] for a in A2D.actions]
        later = [Scene([(kind, a)], stage, [3]).render(3)[0] for a in A2D.actions]
        assert all((frame == frames[0]).all() for frame in frames)
        assert all((frame != later[-1]).any() for frame in later[:-1])


@pytest.mark.parametrize("action", A2D.actions)
def test_pose_of_any_frame_is_uniform(action):
    rng = np.random.default_rng(0)
    start = np.array([random_phases(rng) for _ in range(1500)])
    rates = np.array([phase_rates(action, BODY, phases, rng) for phases in start])
    later = (start + 9 * rates) % 1
    # Mean resultant length and correlation of uniform phases are of the order of 1 / sqrt(1500).
    assert np.abs(np.exp(2j * np.pi * later).mean(axis=0)).max() < 4 / np.sqrt(1500)
    correlation = np.corrcoef(later.T) - np.eye(later.shape[1])
    assert np.abs(correlation).max() < 4.5 / np.sqrt(1500)


def test_stills_do_not_tell_the_action_but_motion_does():
    """Nearest centroids of adults' stills are at chance, those of their displacements are not."""
    stage = Stage(64, 80, difficulty=0.0)
    actions = [a for a in A2D.actions if A2D.valid[0, A2D.action_index(a)]]
    stills, motions, truth = [], [], []
    for seed in range(60):
        for label, action in enumerate(actions):
            scene = Scene([("adult", action)], stage, [seed, label])
            masks = [scene.render(t)[1][0] for t in (4, 5, 6)]
            (x0, y0), (x1, y1), (x2, y2) = [np.argwhere(m).mean(axis=0)[::-1] for m in masks]
            small = cv2.resize(masks[0].astype(np.float32), (10, 8), interpolation=cv2.INTER_AREA)
            stills.append([x0 / 80, y0 / 64, *small.ravel()])
            motions.append([abs(x1 - x0), abs(y1 - y0), abs(x2 - x1), abs(y2 - y1)])
            truth.append(label)
    chance = 1 / len(actions)
    assert _centroid_accuracy(np.array(stills), np.array(truth)) < chance + 0.06
    assert _centroid_accuracy(np.array(motions), np.array(truth)) > 2.5 * chance


def _centroid_accuracy(features: np.ndarray, truth: np.ndarray) -> float:
    """Accuracy on the second half of the rows of centroids of the first half."""
    half = len(truth) // 2
    centroids = np.array(
        [features[:half][truth[:half] == c].mean(axis=0) for c in np.unique(truth)]
    )
    distance = np.linalg.norm(features[half:, None] - centroids, axis=-1)
    return float((distance.argmin(axis=1) == truth[half:]).mean())


# ---------------------------------------------------------------- the page about it


def test_the_pictures_of_the_page_show_the_generator_as_it_is(tmp_path):
    """tools/make_synthetic_a2d.py --contact-sheet docs/images writes them."""
    documented = Path(__file__).parents[2] / "docs" / "images"
    paths = write_pictures(tmp_path)
    assert sorted(path.name for path in paths) == sorted(
        path.name for path in documented.glob("synthetic_*.jpg")
    )
    for path in paths:
        drawn, shown = (cv2.imread(str(p)) for p in (path, documented / path.name))
        assert drawn.shape == shown.shape
        # Versions of OpenCV may draw lines and letters a little differently.
        assert cv2.absdiff(drawn, shown).mean() < 1
