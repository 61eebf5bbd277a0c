"""Joint actor-action semantic segmentation in video, on top of Detectron2."""

__version__ = "0.1.0"
__all__ = ["ActorActionPredictor"]


def __getattr__(name: str):
    """The Python API, imported when it is asked for: it loads torch and Detectron2."""
    if name == "ActorActionPredictor":
        from a2d_d2.predictor import ActorActionPredictor

        return ActorActionPredictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
