"""The whole network of Figure 2.

Dimensions: N clips, F frames of all clips together (one flat batch), K key frames among them, V
frames around a key frame, itself included, C channels, H and W of the padded input, h and w of a
pyramid level.
"""

from dataclasses import dataclass
from functools import partial

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec, move_device_like
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    Backbone,
    build_backbone,
    build_proposal_generator,
    build_roi_heads,
    detector_postprocess,
)
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from a2d_d2.modeling.fusion import build_fusion
from a2d_d2.modeling.recompute import recompute_stages
from a2d_d2.modeling.roi_heads import fused_name
from a2d_d2.modeling.system import check_system
from a2d_d2.modeling.temporal import build_temporal


@dataclass(frozen=True)
class ClipBatch:
    """All frames of N clips in one flat batch.

    Attributes:
        images: (F, 3, H, W) normalised and padded frames.
        flow: (F, 3, H, W) normalised and padded flow; None without the flow stream.
        keys: (K,) int64, positions of the key frames in F.
        key_sizes: (height, width) of each key frame before padding.
        neighbours: (K, V) int64, positions in F of the frames around each key frame, itself in the
            middle; -1 where there is no frame.
        targets: ground truth of each key frame; None at inference.
    """

    images: Tensor
    flow: Tensor | None
    keys: Tensor
    key_sizes: list[tuple[int, int]]
    neighbours: Tensor
    targets: list[Instances] | None


@dataclass(frozen=True)
class FrameFeatures:
    """The pyramids of F frames: level to (F, C, h, w).

    Attributes:
        appearance: pyramid of the appearance backbone.
        motion: pyramid of the flow backbone; None without the flow stream.
    """

    appearance: dict[str, Tensor]
    motion: dict[str, Tensor] | None = None


@META_ARCH_REGISTRY.register()
class ActorActionRCNN(nn.Module):
    """Two-stream network that segments actors and recognises their actions (sections 3.1 to 3.3).

    The appearance stream localises actors on key frames; both streams, aggregated over time and
    fused, recognise their actions. Inference is three steps that streaming can call on their own:
    :meth:`extract_features` of frames, :meth:`aggregate` over their windows (:meth:`over_time` and
    :meth:`fuse`) and :meth:`detect` on key frames.

    ``backbone``, ``proposal_generator`` and ``roi_heads`` are named as in GeneralizedRCNN, so that
    its weights load without renaming.
    """

    takes_clips = True

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        proposal_generator: nn.Module,
        roi_heads: nn.Module,
        flow_backbone: Backbone | None,
        temporal: dict[str, nn.Module] | None,
        fusion: nn.Module | None,
        train_branch: str,
        recompute: bool = False,
        loss_weights: dict[str, float],
        pixel_mean: list[float],
        pixel_std: list[float],
        flow_mean: list[float],
        flow_std: list[float],
    ):
        """
        Args:
            backbone: of appearance.
            flow_backbone: of flow; None without the flow stream.
            proposal_generator: RPN on appearance features of key frames.
            roi_heads: an ActorActionROIHeads or CartesianROIHeads.
            temporal: temporal module of each stream, "appearance" and "motion"; None without the
                action branch.
            fusion: of the aggregated streams; None without the action branch.
            train_branch: "joint"; "actor" (there is no action branch); "action" (the actor branch
                is frozen, its batch norm included); "separate" (the model that both of them make
                one after the other; a2d_d2.engine.stages trains it).
            recompute: whether training keeps the inputs of a few blocks of the backbones alone, see
                :func:`a2d_d2.modeling.recompute.recompute_stages`.
            loss_weights: loss name to its factor in equation (1).
            pixel_mean, pixel_std: of BGR.
            flow_mean, flow_std: of x, y and magnitude, in pixels per frame.
        """
        super().__init__()
        self.backbone = backbone
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.flow_backbone = flow_backbone
        self.temporal = None if temporal is None else nn.ModuleDict(temporal)
        self.fusion = fusion
        self.train_branch = train_branch
        self.loss_weights = loss_weights
        for name, values in (
            ("pixel_mean", pixel_mean),
            ("pixel_std", pixel_std),
            ("flow_mean", flow_mean),
            ("flow_std", flow_std),
        ):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        if flow_backbone is not None:
            # MODEL.BACKBONE.FREEZE_AT spares filters learned on images; flow has to learn its own.
            flow_backbone.requires_grad_(True)
        for stream in (backbone, flow_backbone) if recompute else ():
            if stream is not None:
                recompute_stages(stream)
        if train_branch == "action":
            for module in self._actor_branch():
                module.requires_grad_(False)

    @classmethod
    def from_config(cls, cfg):
        check_system(cfg)
        branch = cfg.MODEL.TRAIN_BRANCH
        backbone = build_backbone(cfg, ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN)))
        shapes = backbone.output_shape()
        flow_backbone = temporal = fusion = None
        if branch != "actor":
            levels = {level: shapes[level] for level in cfg.MODEL.ROI_HEADS.IN_FEATURES}
            temporal = {"appearance": build_temporal(cfg, levels)}
            if cfg.MODEL.FLOW.ENABLED:
                flow_shape = ShapeSpec(channels=len(cfg.MODEL.FLOW.PIXEL_MEAN))
                flow_backbone = build_backbone(cfg, flow_shape)
                temporal["motion"] = build_temporal(cfg, levels)
            fusion = build_fusion(cfg, [module.output_shape for module in temporal.values()])
            shapes = shapes | {fused_name(k): shape for k, shape in fusion.output_shape.items()}
        weights = cfg.MODEL.LOSS_WEIGHTS
        return {
            "backbone": backbone,
            "proposal_generator": build_proposal_generator(cfg, shapes),
            "roi_heads": build_roi_heads(cfg, shapes),
            "flow_backbone": flow_backbone,
            "temporal": temporal,
            "fusion": fusion,
            "train_branch": branch,
            "recompute": cfg.MODEL.BACKBONE.RECOMPUTE,
            "loss_weights": {
                "loss_rpn_cls": weights.RPN_CLS,
                "loss_rpn_loc": weights.BOX_REG,
                "loss_box_reg": weights.BOX_REG,
                "loss_cls": weights.ACTOR,
                "loss_action": weights.ACTION,
                "loss_mask": weights.MASK,
            },
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "flow_mean": cfg.MODEL.FLOW.PIXEL_MEAN,
            "flow_std": cfg.MODEL.FLOW.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def train(self, mode: bool = True):
        """Sets the mode; a frozen actor branch stays in evaluation mode."""
        super().train(mode)
        if self.train_branch == "action":
            for module in self._actor_branch():
                module.eval()
        return self

    def _actor_branch(self) -> list[nn.Module]:
        heads = self.roi_heads.named_children()
        return [
            self.backbone,
            self.proposal_generator,
            *(module for name, module in heads if not name.startswith("action_")),
        ]

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            batched_inputs: N clips of any number of frames and key frames, as ClipDatasetMapper
                makes them. Each has "image" (frames, 3, height, width) uint8 BGR; with the flow
                stream "flow", of the same shape, x, y and magnitude in pixels per frame;
                "key_positions", a list, and "neighbours" (key frames, V), positions in the clip, -1
                for none; in training "instances", one a key frame; at inference the output size
                "height" and "width".

        Returns:
            In training the weighted losses of equation (1) by name; at inference, for each clip,
            {"instances": Instances} of its one key frame at the output size, with ``pred_boxes``,
            ``scores`` and ``pred_classes`` (of the actor), ``pred_masks``, ``action_scores`` over
            all actions and ``pred_actions``.
        """
        clips = self.preprocess(batched_inputs)
        features = self.extract_features(clips.images, clips.flow)
        fused = self.aggregate(features, clips.neighbours)
        appearance = {level: x[clips.keys] for level, x in features.appearance.items()}
        if self.training:
            _, losses = self.run_heads(appearance, fused, clips.key_sizes, clips.targets)
            return {name: loss * self.loss_weights[name] for name, loss in losses.items()}
        detections = self.detect(appearance, fused, clips.key_sizes)
        return [
            {"instances": detector_postprocess(x, clip["height"], clip["width"])}
            for x, clip in zip(detections, batched_inputs, strict=True)
        ]

    def preprocess(self, batched_inputs: list[dict]) -> ClipBatch:
        """Normalises, pads and flattens the clips that :meth:`forward` describes."""
        images, flows, keys, neighbours, targets = [], [], [], [], []
        for clip in batched_inputs:
            assert self.training or len(clip["key_positions"]) == 1, "inference has one key frame"
            start = len(images)
            keys.extend(start + k for k in clip["key_positions"])
            positions = clip["neighbours"]
            neighbours.append(torch.where(positions < 0, positions, positions + start))
            image = move_device_like(clip["image"], self.pixel_mean)
            images.extend((image - self.pixel_mean) / self.pixel_std)
            if self.flow_backbone is not None:
                flow = move_device_like(clip["flow"], self.pixel_mean)
                flows.extend((flow - self.flow_mean) / self.flow_std)
            if self.training:
                targets.extend(x.to(self.device) for x in clip["instances"])
        return ClipBatch(
            images=self._pad(images),
            flow=self._pad(flows) if flows else None,
            keys=torch.tensor(keys, device=self.device),
            key_sizes=[tuple(images[k].shape[-2:]) for k in keys],
            neighbours=torch.cat(neighbours).to(self.device),
            targets=targets if self.training else None,
        )

    def _pad(self, frames: list[Tensor]) -> Tensor:
        """Frames (3, H_i, W_i) in one batch (F, 3, H, W), padded with zeros right and below."""
        batch = ImageList.from_tensors(
            frames,
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )
        # Backbones keep this layout; convolutions and pooling are faster in it.
        return batch.tensor.contiguous(memory_format=torch.channels_last)

    def extract_features(self, images: Tensor, flow: Tensor | None) -> FrameFeatures:
        """The pyramids of F frames; depends on nothing but the frame itself.

        Args:
            images, flow: (F, 3, H, W) as :meth:`preprocess` makes them.
        """
        motion = None if self.flow_backbone is None else self.flow_backbone(flow)
        return FrameFeatures(self.backbone(images), motion)

    def aggregate(self, features: FrameFeatures, neighbours: Tensor) -> dict[str, Tensor]:
        """Aggregates each stream over time and fuses them (section 3.2).

        Args:
            features: of F frames.
            neighbours: (K, V) int64 positions in F of the frames around each key frame; -1 for
                none.

        Returns:
            Level to (K, C, h, w), the features of the action head; empty without the action branch.
        """
        return self.fuse(self.over_time(features, neighbours))

    @property
    def step_radii(self) -> tuple[int, ...] | None:
        """Of the steps that :meth:`over_time` takes (TEMPORAL_REGISTRY); None where it has none."""
        if self.temporal is None:
            return ()
        first, *others = (getattr(x, "step_radii", None) for x in self.temporal.values())
        return first if all(x == first for x in others) else None

    def over_time(
        self, features: FrameFeatures, neighbours: Tensor, step: int | None = None
    ) -> FrameFeatures:
        """Aggregates each stream over time; without the action branch it is left as it is.

        Args:
            features: of F frames; for a step after the first, what the step before gave.
            neighbours: (K, V) int64 positions in F of the frames around each of K frames, as far as
                the temporal modules, or the step, look; -1 for none.
            step: which of the steps to take; None for all at once.

        Returns:
            The features of the K frames.
        """
        if self.temporal is None:
            return features
        aggregated = {}
        for name, module in self.temporal.items():
            run = module if step is None else partial(module.step, step)
            aggregated[name] = run(getattr(features, name), neighbours)
        return FrameFeatures(**aggregated)

    def fuse(self, features: FrameFeatures) -> dict[str, Tensor]:
        """Fuses the streams that :meth:`over_time` gave; what :meth:`aggregate` returns."""
        if self.fusion is None:
            return {}
        return self.fusion([getattr(features, name) for name in self.temporal])

    def detect(
        self,
        appearance: dict[str, Tensor],
        fused: dict[str, Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Finds actors and their actions on K key frames.

        Args:
            appearance: level to (K, C, h, w), appearance features of the key frames.
            fused: of the same frames, from :meth:`aggregate`.
            image_sizes: (height, width) of each frame before padding.

        Returns:
            Detections of each frame in pixels of its size, the fields as :meth:`forward` says, with
            ``pred_masks`` (N, 1, m, m) inside the boxes; ``detector_postprocess`` pastes them.
        """
        detections, _ = self.run_heads(appearance, fused, image_sizes, targets=None)
        return detections

    def run_heads(
        self,
        appearance: dict[str, Tensor],
        fused: dict[str, Tensor],
        image_sizes: list[tuple[int, int]],
        targets: list[Instances] | None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """RPN and region heads on key frames: (instances, losses) as ROIHeads gives them."""
        features = appearance | {fused_name(level): x for level, x in fused.items()}
        # Autocast ends at the pyramids: the CPU's region operators know no bfloat16, boxes and
        # losses want float32, and the heads see key frames alone.
        with torch.autocast(self.device.type, enabled=False):
            features = {name: x.float() for name, x in features.items()}
            images = ImageList(next(iter(features.values())), image_sizes)  # for its sizes alone
            proposals, rpn_losses = self.proposal_generator(images, features, targets)
            instances, losses = self.roi_heads(images, features, proposals, targets)
        return instances, rpn_losses | losses
