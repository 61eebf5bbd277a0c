"""The Python API: a video in, who does what where out.

    from a2d_d2 import ActorActionPredictor

    predictor = ActorActionPredictor("configs/synthetic/R18_FPN.yaml", "model_final.pth")
    for frame in predictor.predict("video.mp4"):
        for x in frame.actors:
            print(f"{frame.time:.2f} s: {x.actor} {x.action} {x.score:.2f} at {x.box}")
        cv2.imwrite(f"{frame.index:05d}.png", frame.draw())

Dimensions: H and W of a frame, A actions.
"""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from a2d_d2.config import setup_cfg
from a2d_d2.inference.source import VideoSource
from a2d_d2.inference.streaming import StreamingPredictor
from a2d_d2.inference.tracks import TrackedInstance, Tracker, track_color
from a2d_d2.inference.types import FrameResult
from a2d_d2.label_space import LabelSpace
from a2d_d2.visualization.canvas import to_picture
from a2d_d2.visualization.instances import LabelledRegion, draw_instances


@dataclass(frozen=True, eq=False)
class Actor:
    """One actor on one frame.

    Attributes:
        actor: name, such as "dog".
        action: name of the likeliest action that the actor can do, such as "running".
        score: probability of the actor, 0 to 1.
        action_scores: (A,) float32, probability of each action, in the order of ``action_names``.
        action_names: all A of them.
        box: (4,) float32, left, top, right, bottom in pixels of the frame.
        mask: (H, W) bool; None if the model makes none.
        track_id: the same number on all frames of a video; None without tracking.
        carried: whether the actor was not detected on this frame, but moved here by the flow.
    """

    actor: str
    action: str
    score: float
    action_scores: np.ndarray
    action_names: tuple[str, ...] = field(repr=False)
    box: np.ndarray
    mask: np.ndarray | None = field(repr=False)
    track_id: int | None = None
    carried: bool = False

    @property
    def action_score(self) -> float:
        """The probability of ``action``."""
        return self.scores_by_action[self.action]

    @property
    def scores_by_action(self) -> dict[str, float]:
        """The probability of each action, by name."""
        return dict(zip(self.action_names, self.action_scores.tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """What happens on one frame.

    Attributes:
        index: 0-based number of the frame.
        time: seconds from the start of the video.
        frame: (H, W, 3) uint8 BGR, as decoded.
        actors: the surest first; empty between detections, unless tracks are carried there.
        detected: whether the model looked for actors on this frame.
        label_space: the classes and their colours.
    """

    index: int
    time: float
    frame: np.ndarray = field(repr=False)
    actors: tuple[Actor, ...]
    detected: bool
    label_space: LabelSpace = field(repr=False)

    def draw(self, scale: float = 1.0) -> np.ndarray:
        """The frame with masks, boxes, names and p(actor) * p(action), BGR uint8.

        With tracking boxes have the colour of the track, and its number stands before the name.

        Args:
            scale: size of the picture relative to the frame; text is crisp on enlarged ones.
        """
        regions = [
            LabelledRegion(
                actor=self.label_space.actor_index(x.actor),
                action=self.label_space.action_index(x.action),
                score=x.score * x.action_score,
                box=x.box,
                mask=x.mask,
                identity=None if x.track_id is None else (x.track_id, track_color(x.track_id)),
            )
            for x in reversed(self.actors)  # the surest on top
        ]
        picture = draw_instances(to_picture(self.frame), regions, self.label_space, scale=scale)
        return np.ascontiguousarray(picture[..., ::-1])


class ActorActionPredictor:
    """Finds the actors of videos and what they do.

    Attributes:
        label_space: names of actors and actions, and which of them go together.
        streaming: the predictor underneath, for live sources and Detectron2's Instances.
    """

    def __init__(
        self,
        config_file: str | os.PathLike,
        weights: str | os.PathLike = "",
        *,
        device: str = "",
        options: Mapping[str, object] | None = None,
        score_threshold: float | None = None,
        tracking: bool = False,
        smoothing: int = 5,
        every: int = 1,
        batch_size: int = 4,
        precision: str = "float32",
    ):
        """
        Args:
            config_file: YAML file that the model was trained with.
            weights: its checkpoint; by default that of the file.
            device: "cuda", "cuda:1", "cpu"; by default a GPU if there is one.
            options: further keys of the configuration, such as {"INPUT.CLIP.STRIDE": 1}.
            score_threshold: actors with a lower score are left out; by default TEST.ACTOR_THRESH
                of the configuration.
            tracking: whether actors keep a number through the video; their action scores are then
                the mean over the last ``smoothing`` frames.
            smoothing: in frames; 0 or 1 leaves the scores as they are.
            every: look for actors on every k-th frame; with tracking they are moved by the flow to
                the frames between.
            batch_size: frames that are computed at once; memory grows with it.
            precision: "float32", "float16" (GPU) or "bfloat16".

        Raises:
            ValueError: a file, key or value is wrong; names it.
        """
        values = dict(options or {})
        if weights:
            values["MODEL.WEIGHTS"] = str(weights)
        if device:
            values["MODEL.DEVICE"] = device
        opts = [x for pair in values.items() for x in pair]
        cfg = setup_cfg(str(config_file), opts)
        if score_threshold is None:
            score_threshold = float(cfg.TEST.ACTOR_THRESH)
        # Says what is wrong before a model is built.
        Tracker(
            LabelSpace.load(cfg.DATASETS.LABEL_SPACE),
            score_threshold=score_threshold,
            smoothing=smoothing,
        )
        cfg = cfg.clone()
        cfg.merge_from_list(["MODEL.ROI_HEADS.SCORE_THRESH_TEST", float(score_threshold)])
        self.label_space = LabelSpace.load(cfg.DATASETS.LABEL_SPACE)
        self._tracking = None
        if tracking:
            self._tracking = {"score_threshold": score_threshold, "smoothing": smoothing}
        self.streaming = StreamingPredictor.from_config(
            cfg, batch_size=batch_size, every=every, precision=precision
        )

    def predict(
        self, video: str | os.PathLike | Iterable[np.ndarray], *, fps: float = 25.0
    ) -> Iterator[VideoFrame]:
        """The frames of a video in order, each as soon as it is computed.

        Memory does not grow with the video. Several videos may be predicted at the same time.

        Args:
            video: path of a video or of a folder of images, or "webcam:0"; or BGR uint8 frames
                (H, W, 3) of one size: an array (frames, H, W, 3), a list, a generator.
            fps: frames per second of given frames; files have their own times.

        Raises:
            ValueError: the video cannot be read, or a frame is none.
        """
        with contextlib.closing(self.streaming.predict(self._open(video, fps))) as results:
            if self._tracking is None:
                for result in results:
                    yield self._frame(result, self._detected(result))
                return
            tracker = Tracker(self.label_space, **self._tracking)
            for result in results:
                for final, tracked in tracker.update(result):
                    yield self._frame(final, self._tracked(tracked))
            for final, tracked in tracker.finish():
                yield self._frame(final, self._tracked(tracked))

    @staticmethod
    def _open(
        video: str | os.PathLike | Iterable[np.ndarray], fps: float
    ) -> Iterator[tuple[float, np.ndarray]]:
        if not isinstance(video, str | os.PathLike):
            if not fps > 0:
                raise ValueError(f"fps is {fps}; it must be above 0")
            yield from ((index / fps, frame) for index, frame in enumerate(video))
            return
        source = VideoSource(video)
        yield from source
        if source.problem:
            logging.getLogger(__name__).warning("%s: %s", source.name, source.problem)

    def _frame(self, result: FrameResult, actors: list[Actor]) -> VideoFrame:
        return VideoFrame(
            index=result.index,
            time=result.time,
            frame=result.frame,
            actors=tuple(sorted(actors, key=lambda x: -x.score)),
            detected=result.instances is not None,
            label_space=self.label_space,
        )

    def _detected(self, result: FrameResult) -> list[Actor]:
        if result.instances is None:
            return []
        fields = {
            name: getattr(value, "tensor", value).numpy()
            for name, value in result.instances.get_fields().items()
        }
        masks = fields.get("pred_masks", [None] * len(result.instances))
        return [
            self._actor(*row, mask=mask)
            for *row, mask in zip(
                fields["pred_classes"],
                fields["pred_actions"],
                fields["scores"],
                fields["action_scores"],
                fields["pred_boxes"],
                masks,
                strict=True,
            )
        ]

    def _tracked(self, instances: Sequence[TrackedInstance]) -> list[Actor]:
        return [
            self._actor(
                x.actor,
                x.action,
                x.score,
                x.action_scores,
                x.bbox,
                mask=x.mask,
                track_id=x.track_id,
                carried=x.carried,
            )
            for x in instances
        ]

    def _actor(self, actor, action, score, action_scores, box, **others) -> Actor:
        return Actor(
            actor=self.label_space.actors[actor],
            action=self.label_space.actions[action],
            score=float(score),
            action_scores=action_scores,
            action_names=self.label_space.actions,
            box=np.asarray(box, dtype=np.float32),
            **others,
        )
