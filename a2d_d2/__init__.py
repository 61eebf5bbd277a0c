"""Joint actor-action semantic segmentation in video, on top of Detectron2."""

__version__ = "0.1.0"
