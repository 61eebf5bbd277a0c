"""Fusion of the appearance and the motion stream (section 3.2).

Dimensions: K key frames, C channels of a stream, h and w of a pyramid level.
"""

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry
from torch import Tensor, nn

from a2d_d2.utils.registry import registered

FUSION_REGISTRY = Registry("FUSION")
FUSION_REGISTRY.__doc__ = """
Registry of fusion modules, called as ``obj(cfg, input_shapes)`` with one mapping of pyramid levels
to ShapeSpec a stream. The instance has ``output_shape`` (level to ShapeSpec) and the ``forward``
that :class:`ConcatFusion` documents.
"""


def build_fusion(cfg: CfgNode, input_shapes: list[dict[str, ShapeSpec]]) -> nn.Module:
    """The fusion module ``MODEL.FUSION.NAME``."""
    return registered(FUSION_REGISTRY, "MODEL.FUSION.NAME", cfg.MODEL.FUSION.NAME)(
        cfg, input_shapes
    )


@FUSION_REGISTRY.register()
class ConcatFusion(nn.Module):
    """Concatenates the channels of the streams at each pyramid level: mid-level fusion."""

    @configurable
    def __init__(self, input_shapes: list[dict[str, ShapeSpec]]):
        """
        Args:
            input_shapes: level to ShapeSpec for each stream; the appearance stream alone is fine.
        """
        super().__init__()
        self.output_shape = {
            level: ShapeSpec(
                channels=sum(shape[level].channels for shape in input_shapes), stride=spec.stride
            )
            for level, spec in input_shapes[0].items()
        }

    @classmethod
    def from_config(cls, cfg, input_shapes):
        return {"input_shapes": input_shapes}

    def forward(self, streams: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """
        Args:
            streams: level to (K, C, h, w) for each stream, in the order of construction.

        Returns:
            Level to (K, sum of C, h, w).
        """
        return {level: torch.cat([x[level] for x in streams], dim=1) for level in self.output_shape}
