"""Every reader against damaged files: short; tools/fuzz.py tries as many as one likes."""

import mmap

import pytest

from a2d_d2.fuzz import campaign
from a2d_d2.fuzz.campaign import Target, as_json, run_campaign, try_case
from a2d_d2.fuzz.targets import TARGETS

CASES = 25


def test_no_reader_fails():
    figures = run_campaign(list(TARGETS), CASES, seed=1, rounds=3, progress=False)
    assert {name: each.examples for name, each in figures.items() if each.failures} == {}
    total = as_json(figures, CASES, 1)["total"]
    assert total["cases"] == total["rejected"] + total["accepted"] == CASES * len(TARGETS)
    # Damage is seen, and not everything is refused.
    assert total["rejected"] > total["cases"] / 2
    assert sum(each.accepted > 0 for each in figures.values()) > len(TARGETS) / 2


FAULTY = """
import mmap
import os
import signal
from hypothesis import strategies as st
from a2d_d2.fuzz.campaign import Target

class Faulty(Target):
    def cases(self):
        return st.just(b"content")

class Crashing(Faulty):
    def read(self, data):
        os.abort()

class Hanging(Faulty):
    def read(self, data):
        signal.setitimer(signal.ITIMER_PROF, 0.2)  # instead of the campaign's limit
        while True:
            pass
"""


@pytest.mark.parametrize(
    ("name", "kind"), [("Crashing", "crash (exit code -6)"), ("Hanging", "hang")]
)
def test_the_campaign_survives(name, kind, tmp_path, monkeypatch):
    (tmp_path / "faulty_readers.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"faulty_readers:{name}"
    figures = run_campaign([name], 1, keep=tmp_path / "kept", progress=False)[name]
    assert (figures.cases, figures.failures, list(figures.examples)) == (1, 1, [kind])
    (kept,) = (path for path in (tmp_path / "kept").rglob("*") if path.is_file())
    assert kept.read_bytes() == b"content"


class Reader(Target):
    """Does what the case says."""

    def read(self, data):
        assert data != b"other content"
        match data:
            case b"refused":
                raise ValueError(f"{self.path} is refused")
            case b"refused silently":
                return False
            case b"nameless":
                raise ValueError("something, somewhere")
            case b"large":
                return True
            case b"unforeseen":
                raise TypeError
        return True


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"refused", "rejected"),
        (b"refused silently", "rejected"),
        (b"good", "accepted"),
        (b"nameless", "message without the file"),
        (b"large", "memory"),
        (b"unforeseen", "TypeError test_fuzz.py read"),
        (b"other content", "AssertionError test_fuzz.py read"),
    ],
)
def test_what_counts_as_a_failure(data, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(campaign, "_memory", memory := Memory())
    memory.used = 600 << 20 if data == b"large" else 0
    assert try_case(Reader(tmp_path, tmp_path), data)[0] == kind


class Memory:
    """Stands in for the system's figures: RSS, and its peak before and after the case."""

    def __init__(self):
        self.used, self.asked = 0, 0

    def __call__(self, name):
        self.asked += 1
        return 100 << 20 if self.asked <= 2 else (100 << 20) + self.used


@pytest.mark.parametrize("name", ["label_space", "videoset"])
def test_a_wrong_label_is_a_failure(name, tmp_path, tiny_release, monkeypatch):
    target = TARGETS[name](tmp_path, tiny_release)
    if name == "videoset":
        monkeypatch.setattr(
            "a2d_d2.data.layout._SPLITS", {0: "test", 1: "train"}
        )  # the reader mixes them up
        data = (tiny_release / "videoset.csv").read_bytes()
    else:
        monkeypatch.setattr("a2d_d2.label_space.LabelSpace.split_id", lambda self, i: (0, 0))
        data = b"actors: [dog]\nactions: [run, sit]\n"
    assert try_case(target, data)[0].startswith("AssertionError")


@pytest.mark.parametrize("leak", [0, 4 << 20])
def test_memory_that_grows_is_seen(leak, tmp_path):
    held = []

    class Leaking(Reader):
        def read(self, data):
            if leak:  # pages of its own: the allocator might serve bytes from what it holds
                held.append(mmap.mmap(-1, leak))
                held[-1].write(b"x" * leak)

    grown = campaign._growth(Leaking(tmp_path, tmp_path), [b"a", b"b"], rounds=5)
    assert (grown > campaign.MAX_GROWTH) == bool(leak)  # 6 reads count
