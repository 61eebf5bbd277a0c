#!/usr/bin/env python3
"""Make ``import detectron2`` work in this Python environment, without a compiler.

Detectron2 is not on PyPI. The official way is to build it from its git repository; whoever has done
so keeps that build: an importable Detectron2 >= 0.6 is left alone. Otherwise this script installs a
pure-Python Detectron2 0.6: pip fetches one wheel of PyPI that carries the whole package as
``LabGym/detectron2``, its SHA-256 is checked, only that folder is kept (it is Apache-2.0; the rest
of the wheel is GPL-3.0 and is thrown away), its imports are renamed back, and the result is
installed as the ordinary distribution ``detectron2``, so that pip, loggers and pickles see nothing
unusual.

The compiled operators (rotated boxes, deformable convolution, the fast COCO evaluator) are not in
it; a2d_d2 uses none of them.
"""

import argparse
import base64
import hashlib
import importlib
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "labgym==3.1.2"
SHA256 = "a2900cff8a3fb508e1975f19b5f9abd9f261966db87b0c332697fb4138c1cb2b"
FOLDER = "LabGym/detectron2/"
VERSION = "0.6"
MINIMUM = (0, 6)

METADATA = f"""Metadata-Version: 2.1
Name: detectron2
Version: {VERSION}
Summary: Detectron2 {VERSION} in pure Python, repackaged without compiled operators
Home-page: https://github.com/facebookresearch/detectron2
License: Apache-2.0
Requires-Python: >=3.7
Requires-Dist: Pillow
Requires-Dist: cloudpickle
Requires-Dist: fvcore (>=0.1.5,<0.1.6)
Requires-Dist: hydra-core (>=1.1)
Requires-Dist: iopath (>=0.1.7)
Requires-Dist: matplotlib
Requires-Dist: omegaconf (>=2.1)
Requires-Dist: pycocotools (>=2.0.2)
Requires-Dist: setuptools (<81)
Requires-Dist: tabulate
Requires-Dist: tensorboard
Requires-Dist: termcolor (>=1.1)
Requires-Dist: tqdm
Requires-Dist: yacs (>=0.1.8)
"""

NOTICE = f"""Detectron2
Copyright (c) Facebook, Inc. and its affiliates (now Meta Platforms, Inc.).

Licensed under the Apache License, Version 2.0 (the "License"); you may not use these files except
in compliance with the License. You may obtain a copy of the License at

    http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software distributed under the License is
distributed on an "AS IS" BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or
implied. See the License for the specific language governing permissions and limitations under the
License.

Detectron2 is a product of Meta. Details: https://detectron2.readthedocs.io

Changes: taken from the folder {FOLDER} of the PyPI wheel {WHEEL} (SHA-256 {SHA256}), where its
absolute imports had been renamed to "LabGym.detectron2"; they were renamed back to "detectron2" by
tools/install_detectron2.py of a2d_d2. Nothing else was changed, and no other file of that wheel is
included.
"""


class InstallError(Exception):
    """A fault that the user can mend; its text is the one line they see."""


def installed_version():
    """Returns the version of the importable Detectron2 as a string, or None."""
    try:
        return importlib.import_module("detectron2").__version__
    except ImportError:
        return None


def is_recent_enough(version):
    """Whether ``version`` ("0.6", "0.7.dev1") is at least the oldest supported one."""
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    return numbers >= MINIMUM


def download_wheel(folder):
    """Fetches the wheel by pip, without its dependencies, into ``folder``; returns its path."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--ignore-requires-python", "--only-binary", ":all:", "--dest", str(folder), WHEEL]
    result = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wheels = sorted(Path(folder).glob("*.whl"))
    if result.returncode or not wheels:
        errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[-1] if errors else "pip gave no wheel"
        raise InstallError(
            f"cannot download {WHEEL} from the package index ({reason}); check the network, pass "
            "--wheel FILE, or install the official Detectron2 build"
        )
    return wheels[0]


def check_hash(wheel, expected=SHA256):
    """Raises InstallError unless the file ``wheel`` has the SHA-256 ``expected``."""
    try:
        found = hashlib.sha256(Path(wheel).read_bytes()).hexdigest()
    except OSError as error:
        raise InstallError(f"cannot read {wheel}: {error.strerror}; pass --wheel FILE") from error
    if found != expected:
        raise InstallError(
            f"{wheel} has SHA-256 {found}, expected {expected}; it is not the tested file: delete "
            "it and download it again, or install the official Detectron2 build"
        )


def _record_line(name, data):
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}"


def repackage(wheel, folder):
    """Writes the wheel ``detectron2-0.6-py3-none-any.whl`` into ``folder``; returns its path.

    Keeps only the folder LabGym/detectron2 of ``wheel`` and renames its imports back. Entries are
    written in sorted order with a fixed date, so that the same input gives the same bytes.
    """
    files = {}
    with zipfile.ZipFile(wheel) as source:
        for name in sorted(source.namelist()):
            if not name.startswith(FOLDER) or name.endswith("/"):
                continue
            data = source.read(name)
            if name.endswith(".py"):
                data = data.replace(b"LabGym.detectron2", b"detectron2")
            files["detectron2/" + name[len(FOLDER) :]] = data
    if "detectron2/__init__.py" not in files:
        raise InstallError(f"{wheel} has no folder {FOLDER}; it is not the tested file")

    info = f"detectron2-{VERSION}.dist-info"
    files[f"{info}/METADATA"] = METADATA.encode()
    files[f"{info}/NOTICE"] = NOTICE.encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: a2d_d2\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = [_record_line(name, data) for name, data in files.items()] + [f"{info}/RECORD,,"]
    files[f"{info}/RECORD"] = ("\n".join(record) + "\n").encode()

    target = Path(folder) / f"detectron2-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            out.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return target


def install(wheel):
    """Installs the repackaged ``wheel`` into the running environment, without dependencies."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--force-reinstall", str(wheel)]
    result = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InstallError(f"pip could not install the repackaged wheel: {reason}")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--wheel", type=Path, help="use this file instead of downloading it")
    args = parser.parse_args(argv)
    try:
        version = installed_version()
        if version and is_recent_enough(version):
            print(f"Detectron2 {version} is importable; left alone.")
            return 0
        with tempfile.TemporaryDirectory() as folder:
            wheel = args.wheel or download_wheel(folder)
            check_hash(wheel)
            install(repackage(wheel, folder))
        print(f"Installed Detectron2 {VERSION} (pure Python).")
        return 0
    except InstallError as error:
        print(f"install_detectron2: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
