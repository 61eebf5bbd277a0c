"""An experiment on the tiny release, and records made by hand."""

import copy
from pathlib import Path

import pytest

from a2d_d2.experiments.plan import Experiment
from a2d_d2.label_space import LabelSpace

ROOT = Path(__file__).parents[2]
LEVELS = ("actor", "action", "joint")
SPACE = LabelSpace.from_dict(
    {
        "name": "farm",
        "actors": ["cat", "dog"],
        "actions": ["run", "none"],
        "valid": {"cat": ["run", "none"]},
    }
)
TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.FPN.OUT_CHANNELS": 8,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_ACTION_HEAD.FC_DIM": 16,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
    "INPUT.MIN_SIZE_TRAIN": "(64,)",
    "INPUT.MIN_SIZE_TEST": 64,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.MAX_ITER": 2,
    "SOLVER.WARMUP_ITERS": 1,
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "TEST.EVAL_PERIOD": 1,
    "TEST.NUM_PICTURES": 1,
    "TEST.DETECTIONS_PER_IMAGE": 5,
}
TINY = tuple(str(text) for item in TINY.items() for text in item)


@pytest.fixture
def make_experiment(tiny_release, tmp_path, monkeypatch):
    """Experiments on the tiny release; the commands that are tested start in the repository."""
    monkeypatch.chdir(ROOT)

    def make(**changes):
        values = {
            "root": tiny_release,
            "output": tmp_path / "out",
            "base": "configs/synthetic/R18_FPN.yaml",
            "hold_out": 2,
            "options": TINY,
        }
        return Experiment(**(values | changes))

    return make


@pytest.fixture
def make_record():
    """Records of :data:`SPACE`, every figure of which is derived from one ``base`` number."""

    def make(system, seed=0, base=50.0, **changes):
        names = {"actor": SPACE.actors, "action": SPACE.actions, "joint": SPACE.pair_names}
        segmentation = {
            level: {metric: base + 10 * i + j for j, metric in enumerate(("ave", "glo", "mIoU"))}
            for i, level in enumerate(LEVELS)
        }
        coco = {level: {"AP": base, "AP50": base + 1, "AP75": base + 2} for level in LEVELS}
        record = {
            "version": 1,
            "system": system,
            "seed": seed,
            "experiment": "same",
            "digest": f"{system}{seed}",
            "base": "configs/base.yaml",
            "options": [],
            "user_options": [],
            "weights_of": None,
            "config": {"SEED": seed},
            "label_space": SPACE.to_dict(),
            "data": {
                "label_space": "farm",
                "videos": {"train": 8, "val": 2, "test": 4},
                "frames": {"train": 24, "val": 6, "test": 12},
                "hold_out": 5,
                "synthetic": None,
                "is_a2d": False,
                "videos_sha256": "0",
            },
            "code": {"revision": "abc", "dirty": False},
            "versions": {"python": "3"},
            "machine": {"cores": 2, "gpus": [], "system": "Linux"},
            "thresholds": {"actor": 0.5, "action": 0.2, "score": 40.0, "chosen_on": "a2d_val"},
            "figures": {
                "official": {
                    "segmentation": segmentation,
                    "detection": {level: {"mAP": base + i} for i, level in enumerate(LEVELS)},
                    "per_class": {
                        "detection": {level: dict.fromkeys(of, base) for level, of in names.items()}
                    },
                },
                "med-vt": {
                    "segmentation": {of: {"mIoU": base, "pixel_IoU": base + 1} for of in LEVELS}
                },
                "coco": {"boxes": coco, "masks": coco},
                "default thresholds": {
                    "official": segmentation,
                    "med-vt": {level: {"mIoU": base} for level in LEVELS},
                },
            },
            "training": {"steps": 100, "seconds_of_steps": 90.0},
            "validation": {
                f"segmentation/{level}/mIoU": [[50, 1.0], [100, 2.0]] for level in LEVELS
            },
        }
        if system == "full":
            record["chance"] = {"cat": 5.0, "dog": 6.0}
        if system in ("full", "mask_rcnn"):
            record["shown"] = []
        return copy.deepcopy(record | changes)

    return make
