"""Packaging of a2d_d2. ``make venv`` installs the tested versions (constraints.txt)."""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "a2d_d2/__init__.py").read_text()).group(1)

# Machines without libGL take opencv-python-headless, the same cv2 without windows (see Makefile).
OPENCV = os.environ.get("A2D_D2_OPENCV", "opencv-python")

# Detectron2 itself is not on PyPI: tools/install_detectron2.py, or the official build. The lines
# after pycocotools are what it imports (scipy: its trackers).
INSTALL_REQUIRES = [
    "torch>=2.4",
    "torchvision>=0.19",
    f"{OPENCV}>=4.8",
    "numpy>=1.26",
    "h5py>=3.8",
    "fvcore>=0.1.5,<0.1.6",
    "pycocotools>=2.0.7",
    "Pillow",
    "PyYAML",
    "cloudpickle",
    "hydra-core>=1.1",
    "iopath>=0.1.7",
    "matplotlib",
    "omegaconf>=2.1",
    "scipy>=1.11",
    "setuptools<81",
    "tabulate",
    "tensorboard",
    "termcolor>=1.1",
    "tqdm",
    "yacs>=0.1.8",
]

setup(
    name="a2d_d2",
    version=VERSION,
    description="Joint actor-action semantic segmentation in video, on Detectron2",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["a2d_d2", "a2d_d2.*"]),
    python_requires=">=3.10",
    install_requires=INSTALL_REQUIRES,
    # H.264 video of tools/predict_video.py where there is no ffmpeg.
    extras_require={
        "video": ["av>=10"],
        "dev": [
            "av>=10",
            "coverage>=7.10",
            "hypothesis",
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            "ruff",
        ],
    },
)
