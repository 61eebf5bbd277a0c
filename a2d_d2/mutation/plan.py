"""What of this package is mutated, and the tests that have to notice."""

from collections.abc import Sequence
from dataclasses import dataclass

PACKAGE = "a2d_d2"
# Where they are not the mirror of a module alone (a2d_d2/X/Y.py and tests/X/test_Y.py).
_TESTS = {
    "modeling/meta_arch": ("modeling/test_agreement.py", "modeling/test_meta_arch.py"),
}
# The part of a module to mutate; the others wholly.
_NAMES = {
    "modeling/meta_arch": (
        "ActorActionRCNN.from_config",
        "ActorActionRCNN.forward",
        "ActorActionRCNN.run_heads",
    )
}
_MODULES = (
    *("evaluation/detection", "evaluation/segmentation", "evaluation/rasterize"),
    *("evaluation/med_vt", "evaluation/coco", "evaluation/scoring", "evaluation/zero_shot"),
    *("evaluation/thresholds", "modeling/action_head", "modeling/temporal", "modeling/meta_arch"),
)
# What the tests import beside the package: loaded once, then forked for each mutant.
LIBRARIES = (
    *("cv2", "h5py", "matplotlib.pyplot", "numpy", "PIL.Image", "pycocotools.cocoeval"),
    *("scipy.optimize", "torch", "torchvision", "tqdm", "yaml"),
    *("detectron2.checkpoint", "detectron2.data.transforms", "detectron2.engine"),
    *("detectron2.evaluation", "detectron2.model_zoo", "detectron2.modeling"),
    *("detectron2.structures", "detectron2.utils.events", "detectron2.evaluation.testing"),
)


@dataclass(frozen=True)
class Module:
    """A module to mutate.

    Attributes:
        path: of its file, from the top of the project.
        tests: arguments for pytest, in the order in which they are run.
        names: as of :func:`a2d_d2.mutation.operators.mutants`.
    """

    path: str
    tests: tuple[str, ...]
    names: tuple[str, ...] = ()


def planned(paths: Sequence[str] = ()) -> list[Module]:
    """The metric and loss modules, or those of them with one of ``paths``.

    Args:
        paths: of files, from the top of the project.

    Raises:
        ValueError: one of ``paths`` is not planned.
    """
    modules = {}
    for name in _MODULES:
        folder, _, stem = name.rpartition("/")
        tests = _TESTS.get(name, (f"{folder}/test_{stem}.py",))
        path = f"{PACKAGE}/{name}.py"
        modules[path] = Module(path, tuple(f"tests/{t}" for t in tests), _NAMES.get(name, ()))
    for path in paths:
        if path not in modules:
            raise ValueError(f"{path} is not planned for mutation; known are {', '.join(modules)}")
    return [modules[path] for path in paths or modules]
