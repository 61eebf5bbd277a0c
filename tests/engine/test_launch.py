"""Which processes may be asked for."""

import argparse
import socket

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
        ({"num_machines": 2, "dist_url": "auto"}, "is auto; .* need --dist-url tcp://HOST:PORT"),
        ({"num_machines": 2, "dist_url": "tcp://first"}, "is tcp://first; .* tcp://HOST:PORT"),
    ],
)
def test_impossible_numbers_of_processes_are_named(monkeypatch, given, message):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    one = {"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "tcp://localhost:1"}
    with pytest.raises(ValueError, match=message):
        launch_main(lambda args: pytest.fail("was started"), argparse.Namespace(**one | given))


def test_a_port_that_is_taken_is_one_line(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        url = f"tcp://localhost:{taken.getsockname()[1]}"
        args = argparse.Namespace(num_gpus=1, num_machines=2, machine_rank=0, dist_url=url)
        with pytest.raises(ValueError, match=f"could not join at --dist-url {url}: .+") as error:
            launch_main(print, args)
    assert "\n" not in str(error.value)
