"""Aggregation over time, on top of the pyramid of each stream (section 3.2).

Dimensions: F frames of all clips, K key frames, V frames around a key frame,
itself included (2 * radius + 1), C channels, h and w of a pyramid level.
"""

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry
from torch import Tensor, nn

from a2d_d2.modeling.system import takes_clips
from a2d_d2.utils.registry import registered

TEMPORAL_REGISTRY = Registry("TEMPORAL")
TEMPORAL_REGISTRY.__doc__ = """
Registry of temporal modules, one instance a stream, called as ``obj(cfg, input_shape)`` where
``input_shape`` maps each pyramid level to its ShapeSpec.

The class has ``config_radius(cfg)``: how many steps of the clip's stride it looks to each side of a
key frame. The instance has ``radius`` (the same number), ``output_shape`` (level to ShapeSpec) and
the ``forward`` that :class:`TemporalConv` documents.

A module made of steps, where what a step gives for a frame depends on the frames around it and not
on which of them is the key frame, may offer these, so that a stream takes each step once a frame:
``step_radii``, a tuple of how far each one looks to each side, which add up to ``radius``, and the
``step`` that :class:`TemporalConv` documents. Without ``step_radii``, or where it is None, a stream
calls ``forward`` with every window. A subclass that changes ``forward`` changes ``step`` too.
"""


def temporal_radius(cfg: CfgNode) -> int:
    """How many steps of the clip's stride the model looks to each side of a key frame.

    0 without a temporal module, when the actor branch is trained alone, and for a detector that
    takes single frames.
    """
    if not cfg.MODEL.TEMPORAL.ENABLED or cfg.MODEL.TRAIN_BRANCH == "actor" or not takes_clips(cfg):
        return 0
    return registered(
        TEMPORAL_REGISTRY, "MODEL.TEMPORAL.NAME", cfg.MODEL.TEMPORAL.NAME
    ).config_radius(cfg)


def build_temporal(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """The temporal module of one stream: that of the config or, when off, the key frame alone."""
    if not cfg.MODEL.TEMPORAL.ENABLED:
        return TemporalConv(input_shape, num_layers=0)
    return registered(TEMPORAL_REGISTRY, "MODEL.TEMPORAL.NAME", cfg.MODEL.TEMPORAL.NAME)(
        cfg, input_shape
    )


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
        self.step_radii = (1,) * num_layers
        self.output_shape = input_shape
        self.levels = nn.ModuleDict()
        for level, shape in input_shape.items():
            self.levels[level] = nn.ModuleList(
                nn.Conv3d(shape.channels, shape.channels, kernel_size=(3, 1, 1))
                for _ in range(num_layers)
            )
            for layer in self.levels[level]:
                weight_init.c2_xavier_fill(layer)  # keeps the variance where nothing is rectified

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
            neighbours: (K, V) int64, for each key frame the positions in F of the frames around it,
                itself in the middle; -1 where there is no frame.

        Returns:
            Level to (K, C, h, w), the features of the key frames with their context.
        """
        assert neighbours.shape[1] == 2 * self.radius + 1, (neighbours.shape, self.radius)
        return {
            level: self._aggregate(features[level], neighbours, layers)
            for level, layers in self.levels.items()
        }

    def step(
        self, index: int, features: dict[str, Tensor], neighbours: Tensor
    ) -> dict[str, Tensor]:
        """One convolution. All of them in turn give what :meth:`forward` gives for a key frame
        around which none of the video's frames is left out.

        Args:
            index: of the convolution.
            features: level to (F, C, h, w), what the step before gave; at first the pyramids.
            neighbours: (K, 2 * step_radii[index] + 1) int64, for each wanted frame the positions in
                F of the frames around it, itself in the middle; -1 outside the video.

        Returns:
            Level to (K, C, h, w).
        """
        assert neighbours.shape[1] == 2 * self.step_radii[index] + 1, (neighbours.shape, index)
        return {
            level: self._aggregate(features[level], neighbours, layers[index : index + 1])
            for level, layers in self.levels.items()
        }

    @staticmethod
    def _aggregate(features: Tensor, neighbours: Tensor, layers: nn.ModuleList) -> Tensor:
        frames = features.permute(0, 2, 3, 1)  # (F, h, w, C), as the backbones lay them out
        frames = frames.index_select(0, neighbours.clamp(min=0).flatten())
        frames = frames.unflatten(0, neighbours.shape)  # (K, V, h, w, C)
        absent = (neighbours < 0)[:, :, None, None, None]
        for layer in layers:
            # Before each layer: what a layer computes at an absent frame is not zero padding.
            frames = _convolve(frames.masked_fill(absent, 0), layer)  # V shrinks by 2
            absent = absent[:, 1:-1]
        return frames.squeeze(1).permute(0, 3, 1, 2)  # (K, C, h, w)


def _convolve(frames: Tensor, layer: nn.Conv3d) -> Tensor:
    """A 3x1x1 convolution without padding, as a matrix product for each of its three taps.

    On a CPU it takes about two thirds of the time of ``layer`` itself (docs/scaling.md).

    Args:
        frames: (K, V, h, w, C).
        layer: its weight is (C', C, 3, 1, 1).

    Returns:
        (K, V - 2, h, w, C').
    """
    total = layer.bias
    for i, weight in enumerate(layer.weight.flatten(2).unbind(2)):
        tap = frames[:, i : frames.shape[1] - 2 + i]
        total = torch.addmm(total, tap.flatten(0, 3), weight.t())
    return total.unflatten(0, tap.shape[:4])
