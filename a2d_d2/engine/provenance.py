"""Where and with what a training was started: revision, versions, machine, processes.

``OUTPUT_DIR/provenance.json`` has an entry for every start of a training, those with ``--resume``
after the first.
"""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import cv2
import detectron2
import numpy
import torch
from detectron2.utils import comm

import a2d_d2
from a2d_d2.utils.files import write_json
from a2d_d2.utils.parallel import default_workers
from a2d_d2.utils.untrusted import read_json

FILE_NAME = "provenance.json"
_PARTS = {"code", "versions", "machine", "processes"}


def write_start(folder: str | Path, *, resume: bool) -> None:
    """Adds this process's start to the file in ``folder``; without ``resume`` it begins anew.

    Raises:
        OSError: the file cannot be written.
    """
    starts = read_starts(folder) if resume else []
    write_json(Path(folder, FILE_NAME), [*starts, describe_start()])


def read_starts(folder: str | Path) -> list[dict]:
    """The entries of the file in ``folder``, as of :func:`describe_start`; none if it is broken."""
    try:
        starts = read_json(Path(folder, FILE_NAME), "starts of a training")
        return starts if all(set(start) == _PARTS for start in starts) else []
    except (OSError, ValueError, TypeError):
        return []


def describe_start() -> dict:
    """This process's "code", "versions" and "machine", and the number of "processes" of its job."""
    return {
        "code": describe_code(),
        "versions": describe_versions(),
        "machine": describe_machine(),
        "processes": comm.get_world_size(),
    }


def describe_machine() -> dict:
    """Cores and GPUs of this machine."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"cores": default_workers(), "gpus": gpus, "system": platform.system()}


def describe_versions() -> dict:
    """Versions of what a run is made with."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": importlib.metadata.version("torchvision"),
        "detectron2": detectron2.__version__,
        "opencv": cv2.__version__,
        "numpy": numpy.__version__,
        "a2d_d2": a2d_d2.__version__,
    }


def describe_code() -> dict:
    """The git revision of this checkout, and whether tracked files differ from it."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments],
                cwd=Path(__file__).parent,
                capture_output=True,
                text=True,
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    revision, changes = (
        git("rev-parse", "HEAD"),
        git("status", "--porcelain", "--untracked-files=no"),
    )
    return {"revision": revision, "dirty": None if changes is None else bool(changes)}
