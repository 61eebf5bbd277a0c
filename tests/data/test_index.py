"""When the index of a release is read, renewed and stored."""

import json
import os
import shutil
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import h5py
import pytest
from iopath.common.file_io import file_lock

from a2d_d2.data import index as index_module
from a2d_d2.data.index import VERSION, index_path, load_index
from a2d_d2.data.layout import read_videoset


@pytest.fixture
def release(tiny_release, tmp_path, monkeypatch):
    """A copy of the generated release without index."""
    monkeypatch.delenv("A2D_D2_CACHE", raising=False)
    ignore = shutil.ignore_patterns(".a2d_d2_index*", "clips320H", "col")
    return shutil.copytree(tiny_release, tmp_path / "A2D", ignore=ignore)


@pytest.fixture
def read_files(monkeypatch):
    """The names of the annotations that were opened, as video/file."""
    names = []
    read_content = index_module._read_content

    def spy(path):
        names.append(f"{path.parent.name}/{path.name}")
        return read_content(path)

    monkeypatch.setattr(index_module, "_read_content", spy)
    return names


def load(root, **options):
    video_ids = [video.video_id for video in read_videoset(root)]
    return load_index(root, video_ids, workers=1, progress=False, **options)


def all_names(root):
    return {f"{p.parent.name}/{p.name}" for p in (root / "Annotations/mat").glob("*/*.mat")}


def test_second_start_opens_no_annotation(release, read_files):
    first = load(release)
    assert set(read_files) == all_names(release)
    assert len(read_files) == len(set(read_files))
    assert index_path(release) == release / ".a2d_d2_index.json"
    read_files.clear()
    assert load(release) == first
    assert read_files == []


def test_entries(release):
    index = load(release)
    assert list(index) == [video.video_id for video in read_videoset(release)]
    for video_id, entries in index.items():
        frames = [entry["frame_index"] for entry in entries]
        assert frames == sorted(set(frames))
        for entry in entries:
            path = release / "Annotations/mat" / video_id / f"{entry['frame_index'] + 1:05d}.mat"
            with h5py.File(path, "r") as file:
                assert entry["ids"] == file["id"][()].ravel().tolist()
            assert (entry["height"], entry["width"], entry["box_faults"]) == (64, 80, 0)
            assert len(entry["boxes"]) == len(entry["rles"]) == len(entry["ids"])


def test_only_changed_files_are_read_again(release, read_files):
    load(release)
    touched, replaced, removed, *_ = sorted((release / "Annotations/mat").glob("*/*.mat"))
    state = touched.stat()
    os.utime(touched, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    state = replaced.stat()
    replaced.write_bytes(b"not an annotation")
    os.utime(replaced, ns=(state.st_atime_ns, state.st_mtime_ns))
    removed.unlink()
    added = removed.with_name("00012.mat")
    assert not added.exists()
    shutil.copy(touched, added)
    read_files.clear()
    index = load(release)
    assert set(read_files) == {f"{p.parent.name}/{p.name}" for p in (touched, replaced, added)}
    entries = {(v, e["frame_index"] + 1): e for v, entries in index.items() for e in entries}
    assert "cut off" in entries[replaced.parent.name, int(replaced.stem)]["error"]
    assert (removed.parent.name, int(removed.stem)) not in entries
    assert entries[added.parent.name, 12]["ids"]
    read_files.clear()
    assert load(release) == index
    assert read_files == []


def test_errors_do_not_name_the_folder_of_that_time(release, tmp_path):
    path = sorted((release / "Annotations/mat").glob("*/*.mat"))[0]
    path.write_bytes(b"")
    load(release)
    moved = release.rename(tmp_path / "moved")
    errors = [e["error"] for entries in load(moved).values() for e in entries if "error" in e]
    assert len(errors) == 1
    assert errors[0].startswith("is cut off")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"version": 1}', f'{{"version": {VERSION}, "videos": []}}']
)
def test_damaged_index_is_built_anew(release, read_files, content):
    expected = load(release)
    index_path(release).write_text(content)
    read_files.clear()
    assert load(release) == expected
    assert set(read_files) == all_names(release)
    assert json.loads(index_path(release).read_text())["version"] == VERSION


def test_index_of_another_version_is_built_anew(release, read_files):
    load(release)
    stored = json.loads(index_path(release).read_text())
    index_path(release).write_text(json.dumps(stored | {"version": VERSION + 1}))
    read_files.clear()
    load(release)
    assert set(read_files) == all_names(release)


def test_cache_folder(release, tmp_path, monkeypatch, read_files):
    monkeypatch.setenv("A2D_D2_CACHE", str(tmp_path / "cache"))
    other = shutil.copytree(release, tmp_path / "other" / "A2D")
    load(release)
    assert index_path(release) != index_path(other)
    assert index_path(release).parent == tmp_path / "cache"
    assert index_path(release).is_file()
    assert not list(release.glob(".a2d*"))
    read_files.clear()
    load(other)
    assert set(read_files) == all_names(other)
    read_files.clear()
    load(release)
    monkeypatch.chdir(release.parent)
    load("A2D")
    assert read_files == []


def test_without_a_place_to_store(release, tmp_path, monkeypatch, package_log):
    expected = load(release)
    (tmp_path / "file").touch()
    monkeypatch.setenv("A2D_D2_CACHE", str(tmp_path / "file"))
    package_log.clear()
    assert load(release) == expected
    assert len(package_log.records) == 1
    assert "set A2D_D2_CACHE" in package_log.records[0].message


def test_a_second_process_waits_and_takes_the_index(release, read_files, monkeypatch):
    expected = load(release)
    stored = index_path(release).read_bytes()
    index_path(release).unlink()
    read_files.clear()
    waiting = threading.Event()

    def announced_lock(path):
        waiting.set()
        return file_lock(path)

    monkeypatch.setattr(index_module, "file_lock", announced_lock)
    with ThreadPoolExecutor(1) as pool:
        with file_lock(str(index_path(release))):
            result = pool.submit(load, release)
            assert waiting.wait(timeout=60)
            index_path(release).write_bytes(stored)
        assert result.result() == expected
    assert read_files == []


def stored_with(path, change):
    """The stored index with its content changed and its checksum right."""
    stored = json.loads(path.read_text())
    entry = next(entries for entries in stored["videos"].values() if entries)[0]
    change(entry)
    videos = json.dumps(stored["videos"])
    head = f'{{"version": {VERSION}, "crc32": {zlib.crc32(videos.encode())}, "videos": '
    path.write_text(f"{head}{videos}}}\n")


def test_an_index_with_one_changed_digit_is_read_anew(release):
    first = load(release)
    path = index_path(release)
    text = path.read_text()
    changed = text.replace('"ids": [', '"ids": [1', 1)
    assert changed != text
    path.write_text(changed)
    assert load(release) == first
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("name", "value"),
    [("ids", "12"), ("ids", [1.5]), ("boxes", [[1, 2]]), ("rles", [3]), ("height", "9")],
)
def test_an_index_of_other_types_is_read_anew(release, name, value):
    first = load(release)
    stored_with(index_path(release), lambda entry: entry.update({name: value}))
    assert load(release) == first
