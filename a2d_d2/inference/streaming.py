"""A video through the network, each frame once, in memory that does not grow with the video.

Dimensions: F frames in a batch, K key frames among those held.
"""

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling import build_model, detector_postprocess
from detectron2.structures import Instances
from torch import Tensor, nn

from a2d_d2.data.flow import check_flow_method
from a2d_d2.data.mapper import ClipDatasetMapper
from a2d_d2.data.windows import check_window
from a2d_d2.inference.aggregation import HeldFeatures, Schedule, split_frames, temporal_steps
from a2d_d2.inference.frames import FramePreparer, PreparedFrame
from a2d_d2.inference.types import FrameResult
from a2d_d2.label_space import LabelSpace
from a2d_d2.modeling.classes import with_actions
from a2d_d2.modeling.meta_arch import ActorActionRCNN, FrameFeatures
from a2d_d2.modeling.start_weights import load_trained_weights
from a2d_d2.modeling.system import takes_clips
from a2d_d2.segmenters.second_stage import SecondStage
from a2d_d2.utils.parallel import map_ahead

# Type of the forward pass to the type of autocast.
PRECISIONS = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Frames that may gather, with every k-th detected, before a batch is full.
MOST_GATHERED = 16


@dataclass
class Stream:
    """What is remembered of one video.

    Attributes:
        prepare: gives frames their flow and size.
        features: of the frames that a window still needs.
        start: of a live source, in seconds of the monotonic clock; None before its first frame.
        seen: number of frames that the network is done with, or never needs.
        gathered: the frames after those, the next batch.
        waiting: the frames that were not given out yet, ascending.
        next_key: the first frame whose detections are still to come.
        detections: by frame, of those that wait for a frame before them.
    """

    prepare: FramePreparer
    features: HeldFeatures
    start: float | None = None
    seen: int = 0
    gathered: list[PreparedFrame] = field(default_factory=list)
    waiting: deque[PreparedFrame] = field(default_factory=deque)
    next_key: int = 0
    detections: dict[int, Instances] = field(default_factory=dict)


class StreamingPredictor:
    """Runs a model over videos, frame by frame: what it gives equals running it on every clip.

    Each frame is resized, its flow computed, each backbone run and each step of the temporal
    modules taken once; features are kept as long as the window of a frame to come needs them. A
    result is delayed by the look-ahead of the temporal module, and until its batch is full.
    :meth:`predict` takes a video, :meth:`push` the frames of a live source one by one,
    :meth:`finish` its end.

    A detector of single frames is served too; its actions are equally likely, or those of its pair.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        label_space: LabelSpace,
        resize: T.Augmentation,
        length: int,
        stride: int,
        radius: int,
        flow_method: str | None,
        classes: str = "actors",
        second_stage: SecondStage | None = None,
        batch_size: int = 4,
        every: int = 1,
        precision: str = "float32",
    ):
        """
        Args:
            model: an ActorActionRCNN, or a detector that takes single frames; put into evaluation
                mode.
            label_space: its classes.
            resize: of frames and flow at test time.
            length, stride: of the window, in frames.
            radius: how many steps the model looks to each side of a key frame.
            flow_method: one of ``a2d_d2.data.flow.FLOW_METHODS``; None without the flow stream.
            classes: what the classes of a detector of single frames stand for (MODEL.CLASSES).
            second_stage: gives detections masks; None for a model that does, or for none.
            batch_size: how many new frames go through the backbones at once, and how many key
                frames through the heads. The memory grows with it; 1 delays a live source least.
            every: detect on frames 0, ``every``, 2 * ``every``, ...; the others have no
                ``instances``, and the backbones skip those that no window needs.
            precision: of the backbones and the temporal modules: "float32", "float16" (GPU) or
                "bfloat16".

        Raises:
            ValueError: a value is out of range, or the precision is not for this device.
        """
        check_window(length, stride)
        if flow_method is not None:
            check_flow_method(flow_method)
        self.device = next(model.parameters()).device
        is_for_clips = getattr(model, "takes_clips", False)
        self.autocast = _check_options(batch_size, every, precision, is_for_clips, self.device)
        self.model = model.eval()
        self.label_space = label_space
        self.resize = resize
        self.schedule = Schedule(length, stride, radius, every)
        self.flow_method = flow_method
        self.second_stage = second_stage
        self.batch_size = batch_size
        if is_for_clips:
            self._network = _ClipNetwork(model, self.schedule)
        else:
            self._network = _FrameNetwork(model, torch.tensor(label_space.valid), classes)
        self.reset()

    @classmethod
    def from_config(
        cls, cfg: CfgNode, *, batch_size: int = 4, every: int = 1, precision: str = "float32"
    ) -> "StreamingPredictor":
        """The predictor of a trained model, with the input that evaluation gives it.

        Args:
            cfg: of the model; ``MODEL.WEIGHTS`` is its checkpoint.
            batch_size, every, precision: as for the class.

        Raises:
            ValueError: the weights are missing or do not fill the model, or a value is wrong.
        """
        device = torch.device(cfg.MODEL.DEVICE)
        _check_options(batch_size, every, precision, takes_clips(cfg), device)  # before the wait
        model = build_model(cfg)
        load_trained_weights(model, cfg)
        return cls.for_model(model, cfg, batch_size=batch_size, every=every, precision=precision)

    @classmethod
    def for_model(
        cls,
        model: nn.Module,
        cfg: CfgNode,
        *,
        batch_size: int = 4,
        every: int = 1,
        precision: str = "float32",
    ) -> "StreamingPredictor":
        """The predictor of a model that was built from ``cfg``, whatever its weights.

        Args:
            model, batch_size, every, precision: as for the class.
            cfg: of the model.

        Raises:
            ValueError: a value is wrong.
        """
        # What evaluation feeds the model, so that the two cannot drift apart.
        fed = ClipDatasetMapper.from_config(cfg, is_train=False)
        second_stage = SecondStage(cfg) if cfg.MODEL.SEGMENTER.NAME else None
        return cls(
            model,
            label_space=LabelSpace.load(cfg.DATASETS.LABEL_SPACE),
            resize=T.AugmentationList(fed["augmentations"]),
            length=fed["length"],
            stride=fed["stride"],
            radius=fed["radius"],
            flow_method=fed["flow_method"],
            classes=cfg.MODEL.CLASSES,
            second_stage=second_stage,
            batch_size=batch_size,
            every=every,
            precision=precision,
        )

    @property
    def look_ahead(self) -> int:
        """How many frames after a frame its result needs."""
        return self.schedule.offsets[-1]

    # ---------------------------------------------------------------- frames in, results out

    def predict(self, frames: Iterable[tuple[float, np.ndarray]]) -> Iterator[FrameResult]:
        """The results of a video, in order.

        A background thread decodes (takes the frames), computes flow and resizes, while the network
        computes; at most two batches ahead. It ends with the iteration, also at an error and when
        the iterator is closed or dropped half-way. What :meth:`push` remembers is left alone.

        Args:
            frames: (seconds from the start, BGR uint8 (H, W, 3)) in order, all of one size; the
                arrays must not be changed afterwards.

        Raises:
            ValueError: a frame is none, or of another size; and what ``frames`` raises.
        """
        stream = self._new_stream()
        prepared = map_ahead(lambda item: stream.prepare(*item), frames, 2 * self.batch_size)
        with contextlib.closing(prepared):
            for frame in prepared:
                yield from self._take(stream, frame)
        yield from self._end(stream)

    def push(self, frame: np.ndarray, time: float | None = None) -> list[FrameResult]:
        """Takes the next frame of a live source.

        Args:
            frame: as for :meth:`predict`.
            time: seconds from the start; by default what a clock says since the first frame.

        Returns:
            The results that are final now, in order: of frames before this one, none, or several.

        Raises:
            ValueError: the frame is none, or of another size than those before.
        """
        stream = self._live
        if time is None:
            stream.start = monotonic() if stream.start is None else stream.start
            time = monotonic() - stream.start
        return self._take(stream, stream.prepare(time, frame))

    def finish(self) -> list[FrameResult]:
        """Ends what was pushed: the results of the last frames. The next push begins anew."""
        results = self._end(self._live)
        self.reset()
        return results

    def reset(self) -> None:
        """Forgets what was pushed."""
        self._live = self._new_stream()

    # ---------------------------------------------------------------- one stream

    def _new_stream(self) -> Stream:
        prepare = FramePreparer(self.resize, self.flow_method, self.schedule.is_needed)
        return Stream(prepare, HeldFeatures(self._network.steps))

    def _take(self, stream: Stream, frame: PreparedFrame) -> list[FrameResult]:
        stream.waiting.append(frame)
        stream.gathered.append(frame)
        needed = sum(x.image is not None for x in stream.gathered)
        most_gathered = max(MOST_GATHERED, self.batch_size)
        if needed == self.batch_size or len(stream.gathered) == most_gathered:
            self._compute(stream)
        return self._give_out(stream)

    def _end(self, stream: Stream) -> list[FrameResult]:
        self._compute(stream, ended=True)
        return self._give_out(stream)

    @torch.no_grad()
    def _compute(self, stream: Stream, ended: bool = False) -> None:
        """The features of the gathered frames, and the detections that they make possible."""
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            frames = [x for x in stream.gathered if x.image is not None]
            if frames:
                stream.features.add([x.index for x in frames], self._network.extract(frames))
            stream.seen += len(stream.gathered)
            stream.gathered.clear()
            while keys := self._complete_keys(stream, ended):
                frames = [x for x in stream.waiting if x.index in keys]
                found = self._network.detect(frames, stream.features, stream.seen)
                stream.detections.update(zip(keys, found, strict=True))
                stream.next_key = keys[-1] + self.schedule.every
                stream.features.keep(self.schedule.keys(stream.next_key, stream.seen))

    def _complete_keys(self, stream: Stream, ended: bool) -> range:
        """The next key frames, a batch at most, of whose windows all frames have been seen."""
        every = self.schedule.every
        end = stream.seen if ended else stream.seen - self.look_ahead
        return range(stream.next_key, min(end, stream.next_key + self.batch_size * every), every)

    def _give_out(self, stream: Stream) -> list[FrameResult]:
        """The results of the frames in front that are final."""
        results = []
        while stream.waiting:
            frame = stream.waiting[0]
            is_key = self.schedule.is_key(frame.index)
            if is_key and frame.index not in stream.detections:
                break
            stream.waiting.popleft()
            instances = stream.detections.pop(frame.index) if is_key else None
            if is_key and self.second_stage is not None:
                instances = self.second_stage(instances, frame.frame)
            results.append(FrameResult(frame.index, frame.time, frame.frame, frame.flow, instances))
        return results


def _check_options(
    batch_size: int, every: int, precision: str, is_for_clips: bool, device: torch.device
) -> torch.dtype | None:
    """The type of autocast; ValueError if a value is out of range or not for this device."""
    for name, value in (("batch_size", batch_size), ("every", every)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    if precision not in PRECISIONS:
        names = ", ".join(PRECISIONS)
        raise ValueError(f"precision is {precision!r}; it must be one of {names}")
    # Detectron2's region operators have no half precision on the CPU; ours ends before them.
    on_cpu = {"float32", "bfloat16"} if is_for_clips else {"float32"}
    if device.type == "cpu" and precision not in on_cpu:
        names = " or ".join(sorted(on_cpu))
        raise ValueError(f"precision {precision} needs a GPU for this model; use {names}")
    return PRECISIONS[precision]


# ---------------------------------------------------------------- networks


class _ClipNetwork:
    """An ActorActionRCNN in its three steps."""

    def __init__(self, model: ActorActionRCNN, schedule: Schedule):
        self.model = model
        self.steps = temporal_steps(model, schedule)

    def extract(self, frames: Sequence[PreparedFrame]) -> list[FrameFeatures]:
        """The features of each of F frames."""
        clips = [
            {
                "image": frame.image[None],
                "flow": None if frame.motion is None else frame.motion[None],
                "key_positions": [0],
                "neighbours": torch.zeros(1, 1, dtype=torch.int64),
            }
            for frame in frames
        ]
        batch = self.model.preprocess(clips)
        return split_frames(self.model.extract_features(batch.images, batch.flow))

    def detect(
        self, keys: Sequence[PreparedFrame], held: HeldFeatures, num_frames: int
    ) -> list[Instances]:
        """The detections on K key frames in their own size, on the CPU.

        Args:
            keys: the key frames.
            held: the features of all frames of their windows.
            num_frames: as for :meth:`HeldFeatures.aggregate`.
        """
        indices = [key.index for key in keys]
        fused = self.model.fuse(held.aggregate(indices, num_frames))
        found = self.model.detect(
            held.appearance(indices), fused, [tuple(key.image.shape[-2:]) for key in keys]
        )
        return [
            detector_postprocess(x, *key.frame.shape[:2]).to("cpu")
            for x, key in zip(found, keys, strict=True)
        ]


class _FrameNetwork:
    """A detector that takes single frames and tells no actions apart."""

    steps = ()

    def __init__(self, model: nn.Module, valid: Tensor, classes: str):
        self.model = model
        self.valid = valid
        self.classes = classes

    def extract(self, frames: Sequence[PreparedFrame]) -> list[FrameFeatures]:
        """No features: nothing is shared between frames."""
        return [FrameFeatures({}) for _ in frames]

    def detect(
        self, keys: Sequence[PreparedFrame], held: HeldFeatures, num_frames: int
    ) -> list[Instances]:
        """As :meth:`_ClipNetwork.detect`, on the key frames alone."""
        sizes = [dict(zip(("height", "width"), key.frame.shape[:2], strict=True)) for key in keys]
        outputs = self.model(
            [{"image": key.image} | size for key, size in zip(keys, sizes, strict=True)]
        )
        return [
            with_actions(output["instances"].to("cpu"), self.valid, self.classes)
            for output in outputs
        ]
