"""How cost grows with the size of the work."""

import json
import mmap

import cv2
import numpy as np
import pytest
import torch

from a2d_d2.benchmark import scale
from a2d_d2.benchmark.common import resident_bytes
from a2d_d2.benchmark.scale import AXES, ScalePoint, Work, draw, fit, scale_lines

CONFIG = "configs/synthetic/R18_FPN.yaml"


def figures(sizes):
    """A step that grows in a straight line, inference in a square, and memory by a root."""
    return {
        "sizes": list(sizes),
        "figures": {
            "step": [0.1 * size for size in sizes],
            "inference": [0.2 * size**2 for size in sizes],
            "training_mib": [3.0 * size**0.5 for size in sizes],
            "inference_mib": [0.0 for _ in sizes],
        },
    }


def test_growth_by_hand():
    growth = fit({"clips": figures([1, 2, 4, 8])})["clips"]
    assert set(growth) == {"step", "inference", "training_mib"}
    assert growth["step"]["exponent"] == pytest.approx(1) and growth["step"]["met"]
    assert growth["inference"]["exponent"] == pytest.approx(2) and not growth["inference"]["met"]
    assert growth["training_mib"] == pytest.approx({"exponent": 0.5, "last": 0.5})


def test_growth_that_comes_late_is_found():
    values = {"sizes": [1, 2, 4, 8], "figures": {"step": [10.0, 10.0, 10.0, 40.0]}}
    growth = fit({"clips": values})["clips"]["step"]
    assert growth["exponent"] < 1 and growth["last"] == pytest.approx(2) and not growth["met"]


def test_sizes_are_what_they_say():
    for axis in AXES:
        for size in axis.sizes:
            work = Work(**axis.work(size))
            found = {"pixels": work.height * work.width} | vars(work)
            assert found[axis.name] == size
            assert work.window % 2 == 1 and work.height % 32 == work.width % 32 == 0


def test_a_point_measures_all_stages_of_its_work(monkeypatch):
    seen = []
    original = scale.random_clip

    def random_clip(*args, **kwargs):
        seen.append(original(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(scale, "random_clip", random_clip)
    threads = torch.get_num_threads()
    work = Work(window=5, height=64, width=64, clips=2, actors=3)
    common = (CONFIG, ("MODEL.FPN.OUT_CHANNELS", "8"), work, 1, threads)
    training, inference = ScalePoint(True, *common)(), ScalePoint(False, *common)()
    assert set(inference) == {"inference", "inference_mib"}
    assert set(training) == {*scale.STAGES, *scale.MEMORY} - set(inference)
    assert all(x > 0 for name, x in (training | inference).items() if name in scale.STAGES)
    assert [len(clip["image"]) for clip in seen] == [5] * 4
    assert [len(clip["instances"][0]) for clip in seen] == [3] * 4


def test_memory_is_the_peak_since_the_model_was_built():
    """In a process that had a larger peak before."""
    common = (CONFIG, (), Work(height=64, width=64, clips=1), 1, 1)
    np.ones(2**26)  # half a GiB, touched and given back
    mib = ScalePoint(True, *common)()["training_mib"]
    assert 5 < mib < 300


def test_resident_memory_comes_and_goes():
    before = resident_bytes()
    with mmap.mmap(-1, 2**27) as block:  # the allocator might serve a tensor from what it holds
        for start in range(0, 2**27, mmap.PAGESIZE):  # touched without a copy beside it
            block[start] = 1
        assert 2**26 < resident_bytes() - before < 2**28
    assert resident_bytes() - before < 2**26


def test_results_are_printed_and_drawn(tmp_path, monkeypatch):
    """The points are made up: each would start a process."""

    def in_new_process(point):
        size = point.work.window * point.work.clips
        return dict.fromkeys(scale.STAGES, 0.1 * size) | dict.fromkeys(scale.MEMORY, 5.0 * size)

    monkeypatch.setattr(scale, "in_new_process", in_new_process)
    result = scale.measure_scale(CONFIG, [], repeats=1, threads=1, progress=False)
    assert result["growth"]["window"]["step"] == pytest.approx(
        {"exponent": 1, "last": 1, "met": True}
    )
    assert json.loads(json.dumps(result)) == result
    text = "\n".join(scale_lines(result))
    assert text.count("| training step") == len(AXES) and "1.00" in text
    draw(result, tmp_path / "scale.png")
    assert cv2.imread(str(tmp_path / "scale.png")).std() > 1


def test_a_wrong_number_is_named():
    with pytest.raises(ValueError, match="--points is 1; a fit needs at least 2"):
        scale.measure_scale(CONFIG, [], repeats=1, threads=1, points=1)
