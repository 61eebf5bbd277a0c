"""Peak memory of a short and of a long video."""

import json

import pytest

from a2d_d2.benchmark.memory import compare, memory_lines


def test_the_command_measures_each_video_in_its_own_process(benchmark, tmp_path):
    path = tmp_path / "memory.json"
    status, printed, _ = benchmark(
        "memory", "--short", "3", "--long", "6", "--threads", "1", "--json", str(path)
    )
    assert status == 0
    result = json.loads(path.read_text())
    for name in ("streaming", "predict_video"):
        short, long = (result["peaks"][name][length] for length in ("short", "long"))
        assert (short["frames"], long["frames"]) == (3, 6)
        for peaks in (short, long):
            assert 50 < peaks["cpu_mib"] < 4096
        figure = result["ratios"][name]["cpu"]
        assert figure["ratio"] == long["cpu_mib"] / short["cpu_mib"]
        assert 0.8 < figure["ratio"] < 1.25
    assert printed.splitlines() == memory_lines(result)
    assert "of 64x80 pixels, at most 3 detections" in printed


def test_figures_by_hand():
    def peaks(frames, cpu, gpu):
        return {"frames": frames, "cpu_mib": cpu, "gpu_mib": gpu}

    measured = {
        "streaming": {"short": peaks(100, 400.0, 50.0), "long": peaks(5000, 416.0, 50.0)},
        "predict_video": {"short": peaks(100, 500.0, 50.0), "long": peaks(5000, 550.0, 40.0)},
    }
    figures = compare(measured)
    assert figures["peaks"] == measured
    assert figures["ratios"] == {
        "streaming": {"cpu": {"ratio": 1.04, "met": True}, "gpu": {"ratio": 1.0, "met": True}},
        "predict_video": {
            "cpu": {"ratio": 1.1, "met": False},
            "gpu": {"ratio": 0.8, "met": False},
        },
    }
    facts = {
        "machine": {"device": "CPU", "cores": 2, "threads": 1}
        | dict.fromkeys(("torch", "detectron2", "opencv"), "1.0"),
        "frames": {"height": 1, "width": 2, "most_detections": 5},
    }
    lines = [line.strip() for line in memory_lines(facts | figures)]
    assert lines[3:5] == [
        "CPU: 100 frames 400.0 MiB, 5000 frames 416.0 MiB, ratio 1.040  (goal: within 5%; met)",
        "GPU: 100 frames 50.0 MiB, 5000 frames 50.0 MiB, ratio 1.000  (goal: within 5%; met)",
    ]
    assert lines[6].endswith("ratio 1.100  (goal: within 5%; missed)")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--short", "0"), "error: --short is 0; it must be at least 1"),
        (("--short", "5", "--long", "5"), "error: --long is 5; it must be above --short, which is"),
        (("--height", "0"), "error: --height is 0; it must be at least 1"),
    ],
)
def test_a_wrong_argument_is_one_line(benchmark, arguments, message):
    status, _, (error,) = benchmark("memory", *arguments)
    assert status == 2
    assert error.startswith(message)
