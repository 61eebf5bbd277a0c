"""Which processes may be asked for."""

import argparse

import pytest

from a2d_d2.engine.launch import launch_main


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_gpus": 0}, "--num-gpus is 0; it must be at least 1"),
        ({"num_gpus": -2}, "--num-gpus is -2; it must be at least 1"),
        ({"num_machines": 0}, "--num-machines is 0; it must be at least 1"),
        ({"machine_rank": 1}, "--machine-rank is 1; with --num-machines 1 it must be from 0 to 0"),
        ({"num_machines": 2, "machine_rank": 2}, "--machine-rank is 2; .* from 0 to 1"),
        ({"num_machines": 2, "machine_rank": -1}, "--machine-rank is -1; .* from 0 to 1"),
    ],
)
def test_impossible_numbers_of_processes_are_named(monkeypatch, given, message):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    one = {"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "tcp://localhost:1"}
    with pytest.raises(ValueError, match=message):
        launch_main(lambda args: pytest.fail("was started"), argparse.Namespace(**one | given))
