"""The Python API: a video in, who does what where out.

    from a2d_d2 import ActorActionPredictor

    predictor = ActorActionPredictor("configs/synthetic/R18_FPN.yaml", "model_final.pth")
    for frame in predictor.predict("video.mp4"):
        for x in frame.actors:
            print(f"{frame.time:.2f} s: {x.actor} {x.action} {x.score:.2f} at {x.box}")
        cv2.imwrite(f"{frame.index:05d}.png", frame.draw())

With ``tracking=True`` the iterator of a video, a :class:`VideoPrediction`, also has ``tracks``: of
each actor when it did what.

Dimensions: H and W of a frame, A actions.
"""

import contextlib
import functools
import logging
import os
from array import array
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from a2d_d2.config import check_device, setup_cfg
from a2d_d2.inference.source import VideoSource
from a2d_d2.inference.streaming import StreamingPredictor
from a2d_d2.inference.tracks import Track, TrackedInstance, Tracker, track_color
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
        index: 0-based number of the frame in the video, those before ``start`` counted.
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


@dataclass(frozen=True)
class ActionSegment:
    """Consecutive frames on which an actor does one thing.

    Attributes:
        first, last: numbers of the frames as ``VideoFrame.index``, both inside.
        first_time, last_time: of these frames, in seconds from the start of the video.
        action: name.
        score: mean of p(actor) * p(action).
    """

    first: int
    last: int
    first_time: float
    last_time: float
    action: str
    score: float


@dataclass(frozen=True)
class ActorTrack:
    """What became of one actor.

    Attributes:
        track_id: as ``Actor.track_id``.
        actor: name.
        first, last, first_time, last_time: as in :class:`ActionSegment`.
        frames: on how many it is.
        score: mean of p(actor).
        segments: its actions in time; frames where it was lost lie between two of them.
    """

    track_id: int
    actor: str
    first: int
    last: int
    first_time: float
    last_time: float
    frames: int
    score: float
    segments: tuple[ActionSegment, ...]


@dataclass(frozen=True)
class _GivenFrames:
    """Frames of the caller, as a :class:`VideoSource`."""

    frames: Iterable[np.ndarray]
    fps: float
    first_frame = 0
    problem = None

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        return ((index / self.fps, frame) for index, frame in enumerate(self.frames))


class VideoPrediction(Iterator[VideoFrame]):
    """The frames of one video in order, each as soon as it is computed, and its tracks."""

    def __init__(
        self,
        frames: Generator[VideoFrame, None, None],
        tracker: Tracker | None,
        source: VideoSource | _GivenFrames,
        times: Sequence[float],
    ):
        self._frames = frames
        self._tracker = tracker
        self._source = source
        self._times = times

    def __next__(self) -> VideoFrame:
        return next(self._frames)

    def close(self) -> None:
        """Ends the prediction before the end of the video, and the work in the background."""
        self._frames.close()

    @property
    def problem(self) -> str | None:
        """After the last frame, one line on what of the video was lost, or None."""
        return self._source.problem

    @property
    def tracks(self) -> tuple[ActorTrack, ...]:
        """The tracks by ``track_id``: of the whole video after its last frame, until then so far.

        They grow with the changes of action, and the times with 8 bytes a frame.

        Raises:
            ValueError: the predictor has no ``tracking``.
        """
        if self._tracker is None:
            raise ValueError("there are no tracks without tracking; give tracking=True")
        return tuple(self._track(track) for track in self._tracker.summaries())

    def _track(self, track: Track) -> ActorTrack:
        names = self._tracker.label_space
        return ActorTrack(
            track_id=track.track_id,
            actor=names.actors[track.actor],
            **self._span(track.first, track.last),
            frames=track.frames,
            score=track.score,
            segments=tuple(
                ActionSegment(
                    **self._span(x.first, x.last), action=names.actions[x.action], score=x.score
                )
                for x in track.segments
            ),
        )

    def _span(self, first: int, last: int) -> dict:
        return {
            "first": self._source.first_frame + first,
            "last": self._source.first_frame + last,
            "first_time": self._times[first],
            "last_time": self._times[last],
        }


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
        min_track_length: int = 1,
        every: int = 1,
        batch_size: int = 4,
        precision: str = "float32",
    ):
        """
        Args:
            config_file: YAML file that the model was trained with.
            weights: its checkpoint; by default that of the file.
            device: "cuda", "cuda:1", "cpu"; by default a GPU if there is one.
            options: further keys of the configuration, such as {"INPUT.CLIP.STRIDE": 1}; they win
                over ``weights`` and ``device``.
            score_threshold: actors with a lower score are left out; by default TEST.ACTOR_THRESH
                of the configuration.
            tracking: whether actors keep a number through the video; their action scores are then
                the mean over the last ``smoothing`` frames.
            smoothing: in frames; 0 or 1 leaves the scores as they are.
            min_track_length: with tracking, actors that are on fewer frames from first to last are
                left out. Whether one is shows later, so that frames come ``min_track_length`` - 1
                frames later at most (and wait for the next detection).
            every: look for actors on every k-th frame; with tracking they are moved by the flow to
                the frames between.
            batch_size: frames that are computed at once; memory grows with it.
            precision: "float32", "float16" (GPU) or "bfloat16".

        Raises:
            ValueError: a file, key or value is wrong; names it.
        """
        values = {}
        if weights:
            values["MODEL.WEIGHTS"] = str(weights)
        if device:
            check_device(device)
            values["MODEL.DEVICE"] = device
        values |= options or {}
        opts = [x for pair in values.items() for x in pair]
        cfg = setup_cfg(str(config_file), opts)
        if score_threshold is None:
            score_threshold = float(cfg.TEST.ACTOR_THRESH)
        self.label_space = LabelSpace.load(cfg.DATASETS.LABEL_SPACE)
        self._make_tracker = functools.partial(
            Tracker,
            self.label_space,
            score_threshold=score_threshold,
            smoothing=smoothing,
            min_track_length=min_track_length,
        )
        self._make_tracker()  # says what is wrong before a model is built
        if min_track_length > 1 and not tracking:
            raise ValueError(f"min_track_length is {min_track_length}; it needs tracking=True")
        self._tracking = tracking
        cfg = cfg.clone()
        cfg.merge_from_list(["MODEL.ROI_HEADS.SCORE_THRESH_TEST", float(score_threshold)])
        self.streaming = StreamingPredictor.from_config(
            cfg, batch_size=batch_size, every=every, precision=precision
        )

    def predict(
        self,
        video: str | os.PathLike | Iterable[np.ndarray],
        *,
        fps: float = 25.0,
        start: float = 0.0,
        end: float | None = None,
    ) -> VideoPrediction:
        """The frames of a video in order, each as soon as it is computed.

        Memory does not grow with the video (with tracking, as ``VideoPrediction.tracks`` says).
        Several videos may be predicted at the same time.

        Args:
            video: path of a video or of a folder of images, or "webcam:0"; or BGR uint8 frames
                (H, W, 3) of one size: an array (frames, H, W, 3), a list, a generator.
            fps: frames per second of given frames; files have their own times.
            start, end: of a path, in seconds: frames outside [start, end) are left out.

        Returns:
            an iterator of :class:`VideoFrame`; with tracking its ``tracks`` are the timelines.

        Raises:
            ValueError: there is no such video, or a value is out of range. While it is iterated
                over: the video cannot be read, or a frame is none.
        """
        if isinstance(video, str | os.PathLike):
            source = VideoSource(video, start=start, end=end)
        elif (start, end) != (0, None):
            raise ValueError("start and end are of a path; of given frames, give those wanted")
        elif not fps > 0:
            raise ValueError(f"fps is {fps}; it must be above 0")
        else:
            source = _GivenFrames(video, fps)
        tracker = self._make_tracker() if self._tracking else None
        times = array("d")
        return VideoPrediction(self._predict(source, tracker, times), tracker, source, times)

    def _predict(
        self, source: VideoSource | _GivenFrames, tracker: Tracker | None, times: array
    ) -> Generator[VideoFrame, None, None]:
        """The frames; ``times`` get those of the frames that the tracker was given."""
        with contextlib.closing(self.streaming.predict(source)) as results:
            for result in results:
                if tracker is None:
                    yield self._frame(result, source, self._detected(result))
                    continue
                times.append(result.time)
                for final, tracked in tracker.update(result):
                    yield self._frame(final, source, self._tracked(tracked))
            for final, tracked in tracker.finish() if tracker else ():
                yield self._frame(final, source, self._tracked(tracked))
        if source.problem:
            logging.getLogger(__name__).warning("%s: %s", source.name, source.problem)

    def _frame(
        self, result: FrameResult, source: VideoSource | _GivenFrames, actors: list[Actor]
    ) -> VideoFrame:
        return VideoFrame(
            index=source.first_frame + result.index,
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
