"""Aggregation over time, on top of the pyramid of each stream (section 3.2).

Dimensions: F frames of all clips, K key frames, W frames in the neighbourhood of a key frame
(2 * radius + 1), C channels, h and w of a pyramid level.
"""

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry
from torch import Tensor, nn

TEMPORAL_REGISTRY = Registry("TEMPORAL")
TEMPORAL_REGISTRY.__doc__ = """
Registry of temporal modules, one instance a stream, called as ``obj(cfg, input_shape)`` where
``input_shape`` maps each pyramid level to its ShapeSpec.

The class has ``config_radius(cfg)``: how many steps of the clip's stride it looks to each side of a
key frame. The instance has ``radius`` (the same number), ``output_shape`` (level to ShapeSpec) and
the ``forward`` that :class:`TemporalConv` documents.
"""


def temporal_radius(cfg: CfgNode) -> int:
    """How many steps of the clip's stride the model looks to each side of a key frame.

    0 without a temporal module, and when the actor branch is trained alone.
    """
    if not cfg.MODEL.TEMPORAL.ENABLED or cfg.MODEL.TRAIN_BRANCH == "actor":
        return 0
    return TEMPORAL_REGISTRY.get(cfg.MODEL.TEMPORAL.NAME).config_radius(cfg)


def build_temporal(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """The temporal module of one stream: ``MODEL.TEMPORAL.NAME``, or the key frame alone when off."""
    if not cfg.MODEL.TEMPORAL.ENABLED:
        return TemporalConv(input_shape, num_layers=0)
    return TEMPORAL_REGISTRY.get(cfg.MODEL.TEMPORAL.NAME)(cfg, input_shape)


def gather_frames(features: Tensor, neighbours: Tensor) -> Tensor:
    """Frames (F, C, h, w) at positions (K, W), zero where a position is -1: (K, W, C, h, w)."""
    absent = (neighbours < 0)[:, :, None, None, None]
    frames = features[neighbours.clamp(min=0)]
    return frames.masked_fill_(absent, 0)


@TEMPORAL_REGISTRY.register()
class TemporalConv(nn.Module):
    """3x1x1 convolutions over time, with own weights for each pyramid level (section 3.2).

    Computes the outputs of the key frames alone, and those of convolutions over the whole clip with
    zero padding in time. Without norm and activation, randomly started (section 4).
    """

    @configurable
    def __init__(self, input_shape: dict[str, ShapeSpec], *, num_layers: int):
        """
        Args:
            input_shape: channels of each pyramid level.
            num_layers: number of convolutions; each reaches one frame further to both sides.
        """
        super().__init__()
        self.radius = num_layers
        self.output_shape = input_shape
        self.levels = nn.ModuleDict()
        for level, shape in input_shape.items():
            layers = [
                nn.Conv3d(shape.channels, shape.channels, (3, 1, 1)) for _ in range(num_layers)
            ]
            for layer in layers:
                weight_init.c2_xavier_fill(layer)  # keeps the variance of layers without activation
            self.levels[level] = nn.ModuleList(layers)

    @classmethod
    def from_config(cls, cfg, input_shape):
        return {"input_shape": input_shape, "num_layers": cfg.MODEL.TEMPORAL.NUM_LAYERS}

    @staticmethod
    def config_radius(cfg: CfgNode) -> int:
        return cfg.MODEL.TEMPORAL.NUM_LAYERS

    def forward(self, features: dict[str, Tensor], neighbours: Tensor) -> dict[str, Tensor]:
        """
        Args:
            features: level to (F, C, h, w), the frames of all clips.
            neighbours: (K, W) int64, for each key frame the positions in F of the frames around it,
                itself in the middle; -1 where there is no frame.

        Returns:
            Level to (K, C, h, w), the features of the key frames with their context.
        """
        assert neighbours.shape[1] == 2 * self.radius + 1, (neighbours.shape, self.radius)
        return {
            level: self._aggregate(features[level], neighbours, layers)
            for level, layers in self.levels.items()
        }

    @staticmethod
    def _aggregate(features: Tensor, neighbours: Tensor, layers: nn.ModuleList) -> Tensor:
        frames = gather_frames(features, neighbours).transpose(1, 2)  # (K, C, W, h, w)
        present = (neighbours >= 0)[:, None, :, None, None]
        for layer in layers:
            frames = layer(frames)  # W shrinks by 2
            present = present[:, :, 1:-1]
            # What a layer computes for an absent frame is not the zero padding of the next layer.
            frames = frames.masked_fill(~present, 0)
        return frames.squeeze(2)
