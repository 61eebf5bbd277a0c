"""Every reader against damaged files: short; tools/fuzz.py tries as many as one likes."""

import pytest

from a2d_d2.fuzz.campaign import as_json, run_campaign, try_case
from a2d_d2.fuzz.targets import TARGETS

CASES = 40


def test_no_reader_fails():
    figures = run_campaign(list(TARGETS), CASES, seed=1, progress=False)
    assert {name: each.examples for name, each in figures.items() if each.failures} == {}
    total = as_json(figures, CASES, 1)["total"]
    assert total["cases"] == total["rejected"] + total["accepted"] == CASES * len(TARGETS)
    # Damage is seen, and not everything is refused.
    assert total["rejected"] > total["cases"] / 2
    assert sum(each.accepted > 0 for each in figures.values()) > len(TARGETS) / 2


FAULTY = """
import os
import signal
from hypothesis import strategies as st
from a2d_d2.fuzz.targets import Target

class Faulty(Target):
    def cases(self):
        return st.sampled_from([bytes([i]) for i in range(6)])

    def read(self, data):
        match data[0]:
            case 0: raise ValueError(f"{self.path} is refused")
            case 1: return True
            case 2: os.abort()
            case 3: raise TypeError("nobody catches this")
            case 4: raise ValueError("something, somewhere")
            case 5: bytearray(600 << 20)

class Hanging(Faulty):
    def read(self, data):
        signal.setitimer(signal.ITIMER_PROF, 0.2)  # instead of the campaign's limit
        while True:
            pass
"""


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    (tmp_path / "faulty_readers.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(tmp_path)


def test_what_counts_as_a_failure(faulty, tmp_path):
    name = "faulty_readers:Faulty"
    figures = run_campaign([name], 12, keep=tmp_path / "kept", progress=False)[name]
    assert figures.cases == 12 == figures.rejected + figures.accepted + figures.failures
    assert figures.rejected and figures.accepted
    kinds = " ".join(figures.examples)
    assert "crash (exit code -6)" in kinds
    assert "TypeError faulty_readers.py read" in kinds
    assert "message without the file" in kinds
    assert "memory" in kinds
    assert [path for path in (tmp_path / "kept").rglob("*") if path.read_bytes() == b"\2"]


def test_a_hang_is_ended(faulty):
    name = "faulty_readers:Hanging"
    figures = run_campaign([name], 1, progress=False)[name]
    assert (figures.cases, figures.failures, list(figures.examples)) == (1, 1, ["hang"])


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
