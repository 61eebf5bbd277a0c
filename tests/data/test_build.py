import multiprocessing
import os
import shutil
import signal
import subprocess
import time

import pytest
from detectron2.data import DatasetCatalog
from torch.utils.data import DataLoader, Dataset

from a2d_d2.config import setup_cfg
from a2d_d2.data.build import (
    ReadableClips,
    build_test_loader,
    build_train_loader,
    train_records,
    with_window_annotations,
)
from a2d_d2.data.video import VideoError


@pytest.fixture
def make_cfg(tiny_release):
    def make(*options):
        return setup_cfg(
            opts=[
                *("DATASETS.ROOT", str(tiny_release)),
                *("DATASETS.TRAIN", ("a2d_train",), "DATASETS.TEST", ("a2d_test",)),
                *("INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.MIN_SIZE_TEST", 64),
                *("DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 2),
                *options,
            ]
        )

    return make


@pytest.fixture
def empty_frames():
    """Registers the two data sets again with every other frame without annotations."""

    def register(name):
        records = DatasetCatalog.get(name)
        changed = [r if i % 2 else r | {"annotations": []} for i, r in enumerate(records)]
        DatasetCatalog.remove(name)
        DatasetCatalog.register(name, lambda: changed)
        return len(changed)

    names = ("a2d_train", "a2d_test")
    yield lambda: [register(name) for name in names]
    for name in names:
        DatasetCatalog.remove(name)


def test_batches_of_clips(make_cfg):
    batch = next(iter(build_train_loader(make_cfg())))
    assert len(batch) == 2
    assert all(len(clip["instances"]) == len(clip["key_positions"]) for clip in batch)


def test_batches_of_single_frames(make_cfg):
    cfg = make_cfg(
        *("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.CLASSES", "pairs"),
        *("MODEL.ROI_HEADS.NAME", "CanonicalROIHeads"),
    )
    records = train_records(cfg)
    assert len(records) == len(DatasetCatalog.get("a2d_train"))
    assert not any("window_annotations" in record for record in records)
    batch = next(iter(build_train_loader(cfg)))
    assert [frame["image"].shape for frame in batch] == [(3, 64, 80)] * 2
    frames = [frame for one in build_test_loader(cfg, "a2d_test") for frame in one]
    names = [record["image_id"] for record in DatasetCatalog.get("a2d_test")]
    assert [frame["image_id"] for frame in frames] == names


def test_loader_processes(make_cfg):
    cfg = make_cfg("DATALOADER.NUM_WORKERS", 1)
    for loader in (build_train_loader(cfg), build_test_loader(cfg, "a2d_test")):
        clip = next(iter(loader))[0]
        assert clip["image"].shape[1:] == (3, 64, 80)


class _ProcessNumbers(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        return os.getpid()


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_the_trainer_alone_ends_a_loader_process(make_cfg, method):
    for made in (build_train_loader(make_cfg()), build_test_loader(make_cfg(), "a2d_test")):
        loader = DataLoader(
            _ProcessNumbers(),
            batch_size=None,
            num_workers=1,
            worker_init_fn=made.worker_init_fn,
            multiprocessing_context=method,
            prefetch_factor=1,
        )
        numbers = iter(loader)
        process = next(numbers)
        subprocess.run(["kill", "-TERM", str(process)], check=True)  # of somebody else
        time.sleep(0.2)
        assert next(numbers) == next(numbers) == process
        (child,) = [c for c in multiprocessing.active_children() if c.pid == process]
        os.kill(process, signal.SIGTERM)
        child.join(30)
        assert child.exitcode == 0


def test_training_drops_frames_without_annotations_testing_never(make_cfg, empty_frames):
    cfg = make_cfg()
    num_train, num_test = empty_frames()
    kept = train_records(cfg)
    assert len(kept) == num_train // 2 and all(r["annotations"] for r in kept)
    assert all(all(r["window_annotations"].values()) for r in kept)
    clips = [clip for batch in build_test_loader(cfg, "a2d_test") for clip in batch]
    assert [c["image_id"] for c in clips] == [r["image_id"] for r in DatasetCatalog.get("a2d_test")]
    assert len(clips) == num_test
    everything = make_cfg("DATALOADER.FILTER_EMPTY_ANNOTATIONS", False)
    empty_frames()
    assert len(train_records(everything)) == num_train


def test_an_evaluation_takes_several_frames_at_once(make_cfg):
    loader = build_test_loader(make_cfg("TEST.IMS_PER_BATCH", 3), "a2d_test")
    batches = [[clip["image_id"] for clip in batch] for batch in loader]
    ids = [record["image_id"] for record in DatasetCatalog.get("a2d_test")]
    assert len(ids) > 3 and batches == [ids[i : i + 3] for i in range(0, len(ids), 3)]


def test_aspect_ratios_are_not_mixed(make_cfg, monkeypatch):
    cfg = make_cfg("SOLVER.IMS_PER_BATCH", 3)
    records = DatasetCatalog.get("a2d_train")
    wide = {r["image_id"] for r in records[::2]}
    monkeypatch.setattr("a2d_d2.data.build.build_mapper", lambda cfg, is_train: _shape_of)
    monkeypatch.setattr("a2d_d2.data.build.train_records", lambda cfg: _turned(records, wide))
    loader = iter(build_train_loader(cfg))
    kinds = set()
    for _ in range(12):
        (kind,) = {clip["width"] > clip["height"] for clip in next(loader)}
        kinds.add(kind)
    assert kinds == {True, False}


def _shape_of(record):
    return {key: record[key] for key in ("width", "height")}


def _turned(records, wide):
    return [r if r["image_id"] in wide else r | {"width": 64, "height": 80} for r in records]


def test_window_annotations_by_hand():
    def record(clip, frame, annotated):
        return {
            "file_name": clip,
            "frame_index": frame,
            "annotated_frames": annotated,
            "annotations": [f"{clip}{frame}"],
        }

    # Frame 9 of clip a has a fault: it is annotated, but has no record.
    records = [record("a", f, [0, 4, 5, 9]) for f in (0, 4, 5)] + [record("b", 4, [4])]
    before = [dict(r) for r in records]
    result = with_window_annotations(records, length=5, stride=1)
    assert [r["window_annotations"] for r in result] == [
        {4: ["a4"]},
        {0: ["a0"], 5: ["a5"]},
        {4: ["a4"]},
        {},
    ]
    assert records == before
    reach = with_window_annotations(records, length=2, stride=5)
    assert [sorted(r["window_annotations"]) for r in reach] == [[4, 5], [0, 5], [0, 4], []]


def test_training_leaves_out_missing_clips_with_one_warning(
    make_cfg, tiny_release, tmp_path, package_log
):
    root = tmp_path / "A2D"
    shutil.copytree(tiny_release, root)
    everything = train_records(make_cfg("DATASETS.ROOT", str(root)))
    gone = everything[0]["video_id"]
    (root / "clips320H" / f"{gone}.mp4").unlink()
    left = train_records(make_cfg("DATASETS.ROOT", str(root)))
    assert {r["video_id"] for r in everything} - {r["video_id"] for r in left} == {gone}
    warnings = [r.message for r in package_log.records if r.levelname == "WARNING"]
    assert [w for w in warnings if "1 of 4 training clips" in w and gone in w]
    for clip in (root / "clips320H").iterdir():
        clip.unlink()
    with pytest.raises(ValueError, match="no clip to train on"):
        train_records(make_cfg("DATASETS.ROOT", str(root)))


def test_training_goes_on_without_clips_that_cannot_be_read(package_log):
    def mapper(record):
        if record["clip"] == "cut":
            raise VideoError("cut.mp4 ends before its annotated frame 9")
        return record["clip"]

    records = [{"clip": name} for name in ("a", "cut", "cut", "b")]
    clips = ReadableClips(records, mapper)
    assert [clips[i] for i in range(len(clips))] == ["a", "b", "b", "b"]
    warnings = [r.message for r in package_log.records if r.levelname == "WARNING"]
    assert warnings == ["left out of training: cut.mp4 ends before its annotated frame 9"]
    with pytest.raises(ValueError, match="no clip to train on: cut.mp4 ends"):
        ReadableClips(records[1:3], mapper)[0]


def test_loader_survives_a_clip_that_is_cut_short(make_cfg, tiny_release, tmp_path):
    root = tmp_path / "A2D"
    shutil.copytree(tiny_release, root)
    cfg = make_cfg("DATASETS.ROOT", str(root))
    broken = train_records(cfg)[0]
    path = root / "clips320H" / f"{broken['video_id']}.mp4"
    path.write_bytes(path.read_bytes()[:500])
    loader = iter(build_train_loader(cfg))
    seen = {clip["video_id"] for _ in range(10) for clip in next(loader)}
    assert seen and broken["video_id"] not in seen


def test_names_that_are_not_registered(make_cfg):
    with pytest.raises(ValueError, match="DATASETS.TRAIN names 'nosuch', which is not registered"):
        train_records(make_cfg("DATASETS.TRAIN", ("nosuch",)))
    with pytest.raises(ValueError, match="DATASETS.TEST names 'nosuch'"):
        build_test_loader(make_cfg(), "nosuch")
    with pytest.raises(
        ValueError, match=r"nearest is a2d_test.*datasets/README\.md.*make_synthetic"
    ):
        build_test_loader(make_cfg(), "a2d_tset")
    own = "names 'coco_2017_train', which is no release with actors and actions; use a2d_train"
    with pytest.raises(ValueError, match=f"DATASETS.TRAIN {own}"):
        train_records(make_cfg("DATASETS.TRAIN", ("coco_2017_train",)))
    with pytest.raises(ValueError, match=f"DATASETS.TEST {own}"):
        build_test_loader(make_cfg(), "coco_2017_train")
    with pytest.raises(ValueError, match=r"DATASETS\.TRAIN is empty"):
        train_records(make_cfg("DATASETS.TRAIN", ()))
