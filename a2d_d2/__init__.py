"""Joint actor-action semantic segmentation in video, on top of Detectron2."""

import logging
import warnings

# Detectron2 0.6 makes calls whose end today's torch announces. Users can do nothing about them.
warnings.filterwarnings(
    "ignore", message="`torch.jit.script` is deprecated", category=FutureWarning
)
warnings.filterwarnings("ignore", message="torch.meshgrid: in an upcoming", category=UserWarning)
warnings.filterwarnings("ignore", message="pkg_resources is deprecated", category=UserWarning)
logging.getLogger("torch.utils.cpp_extension").addFilter(
    lambda record: "No CUDA runtime is found" not in str(record.msg)
)
logging.getLogger("torch.fx._symbolic_trace").addFilter(
    lambda record: "is_fx_tracing" not in str(record.msg)
)

__version__ = "0.1.0"
__all__ = ["ActorActionPredictor"]


def __getattr__(name: str):
    """The Python API, imported when it is asked for: it loads torch and Detectron2."""
    if name == "ActorActionPredictor":
        from a2d_d2.predictor import ActorActionPredictor

        return ActorActionPredictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
