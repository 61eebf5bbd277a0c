"""The measurement of starts, on a few videos."""

from a2d_d2.data import measure


def test_counts_and_two_starts(monkeypatch, tmp_path):
    monkeypatch.setenv("A2D_D2_CACHE", str(tmp_path))
    monkeypatch.setattr(measure, "ANNOTATED", {3: 2, 1: 1})
    monkeypatch.setattr(measure, "NUM_TEST", 1)
    monkeypatch.setattr(measure, "INSTANCES", (1, 2))
    result = measure.measure_start()
    assert (result["videos"], result["annotated_frames"], result["instances"]) == (3, 7, 10)
    assert result["first_start_seconds"] >= 0
    assert result["second_start_seconds"] >= 0


def test_size_is_that_of_a2d():
    assert sum(measure.ANNOTATED.values()) == 3782
    assert sum(count * videos for count, videos in measure.ANNOTATED.items()) == 11926
