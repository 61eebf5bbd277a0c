"""Instances linked through time: who is who, and what each does when.

Detectron2's Hungarian tracker links the detections of a frame to the tracks before it, each moved
there by the optical flow. A link needs the same actor and boxes that overlap; of all ways to link,
the one with the largest sum of box IoUs is taken, to which mask IoU adds a tenth of its value, so
that it decides where boxes tie. Different actors are not linked: a detector that mistakes a cat for
a dog now and then makes short dog tracks, which ``min_track_length`` drops, and the cat keeps its
own.

Action scores are smoothed over the past alone, so that live use has no delay for it; the price is
that a change of action shows about half a window late.

Dimensions: N instances, H and W of a frame, A actions.
"""

import colorsys
import numbers
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
from detectron2.structures import Instances, pairwise_iou
from detectron2.tracking import BaseHungarianTracker

from a2d_d2.evaluation.predictions import FramePredictions
from a2d_d2.evaluation.rasterize import ACTOR_THRESHOLD, best_actions
from a2d_d2.inference.types import FrameResult
from a2d_d2.label_space import LabelSpace

MASK_WEIGHT = 0.1  # masks overrule boxes whose IoUs differ by less than this
GOLDEN_RATIO = 0.618034


@dataclass(frozen=True)
class TrackedInstance:
    """One actor on one frame.

    Attributes:
        track_id: 0-based, unique in a video, in order of appearance.
        actor, action: 0-based indices; the action is the best valid one of the smoothed scores.
        score: p(actor) on this frame, or where it was last detected.
        action_scores: (A,) float32, smoothed along the track.
        bbox: (4,) float32 XYXY in pixels, inside the frame.
        mask: (H, W) bool; None if the detector makes none.
        carried: whether the flow brought it here from the last frame with detections.
    """

    track_id: int
    actor: int
    action: int
    score: float
    action_scores: np.ndarray
    bbox: np.ndarray
    mask: np.ndarray | None
    carried: bool

    @property
    def pair_score(self) -> float:
        """p(actor) * p(action)."""
        return self.score * float(self.action_scores[self.action])


@dataclass(frozen=True)
class Segment:
    """Consecutive frames on which a track has one action.

    Attributes:
        first, last: frame numbers, both inside.
        action: 0-based index.
        score: mean of p(actor) * p(action).
    """

    first: int
    last: int
    action: int
    score: float


@dataclass(frozen=True)
class Track:
    """What became of one actor.

    Attributes:
        track_id: as in :class:`TrackedInstance`.
        actor: 0-based index.
        first, last: frame numbers, both inside.
        frames: on how many it is, those between included where it was carried, not where lost.
        score: mean of p(actor).
        segments: its actions in time; frames where it was lost lie between two of them.
    """

    track_id: int
    actor: int
    first: int
    last: int
    frames: int
    score: float
    segments: tuple[Segment, ...]


def track_color(track_id: int) -> tuple[int, int, int]:
    """RGB in 0..255 of an identity; those that appear one after the other differ clearly."""
    hue = track_id * GOLDEN_RATIO % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


# ---------------------------------------------------------------- linking


class ActorTracker(BaseHungarianTracker):
    """Detectron2's Hungarian tracker with links as the module describes them.

    It differs in this: pairs that may not be linked cost nothing and are never linked, so that a
    good link is not given up for two poor ones; overlaps are weighed and not only counted; and
    tracks move with the flow.
    """

    def __init__(self, *, iou_threshold: float, patience: int):
        """
        Args:
            iou_threshold: least box IoU of a link.
            patience: on how many frames a track may be missed and still be found again.
        """
        # The size belongs to Detectron2's rule for small boxes, which is not used here.
        super().__init__(video_height=0, video_width=0, max_lost_frame_count=patience)
        self._iou_threshold = iou_threshold
        self._overlaps = np.zeros((0, 0))

    @property
    def tracks(self) -> Instances | None:
        """All tracks that can still be found, where they are now; None before the first update.

        Beside the fields of :meth:`update`, "ID" and "lost_frame_count" (0 if it was found on the
        last update), both lists.
        """
        return self._prev_instances

    def carry(self, flow: np.ndarray) -> None:
        """Moves box and mask of every track by the mean flow inside its mask (box, without one).

        Masks move by whole pixels; what is left over is kept for the next frame.

        Args:
            flow: (H, W, 2) from the frame where the tracks are, in pixels per frame.
        """
        tracks = self._prev_instances
        if tracks is None:
            return
        boxes, rests = tracks.pred_boxes.tensor.numpy(), tracks.rest.numpy()
        masks = tracks.pred_masks.numpy() if tracks.has("pred_masks") else [None] * len(tracks)
        for box, mask, rest in zip(boxes, masks, rests, strict=True):
            motion = mean_flow(flow, box, mask)
            box += np.tile(motion, 2)
            rest += motion
            if mask is not None:
                steps = np.round(rest)
                mask[:] = shift_mask(mask, *steps.astype(int))
                rest -= steps

    def forget(self, identities: set[int]) -> None:
        """Ends the tracks with these IDs."""
        kept = [i for i, x in enumerate(self._prev_instances.ID) if x not in identities]
        self._prev_instances = _select(self._prev_instances, kept)

    def build_cost_matrix(self, instances: Instances, prev_instances: Instances) -> np.ndarray:
        """(N, tracks) minus the overlap of each pair, 0 for those that may not be linked."""
        iou = pairwise_iou(instances.pred_boxes, prev_instances.pred_boxes).double().numpy()
        same_actor = instances.pred_classes[:, None] == prev_instances.pred_classes[None]
        linkable = same_actor.numpy() & (iou >= self._iou_threshold)
        self._overlaps = np.where(linkable, iou, 0)
        if instances.has("pred_masks"):
            rivals = (linkable.sum(axis=0) > 1)[None] | (linkable.sum(axis=1) > 1)[:, None]
            for i, j in np.argwhere(linkable & rivals):
                masks = instances.pred_masks[i].numpy(), prev_instances.pred_masks[j].numpy()
                self._overlaps[i, j] += MASK_WEIGHT * mask_iou(*masks)
        return -self._overlaps

    def _initialize_extra_fields(self, instances: Instances) -> Instances:
        instances.rest = torch.zeros(len(instances), 2)
        return super()._initialize_extra_fields(instances)

    def _process_matched_idx(self, instances, matched_idx, matched_prev_idx):
        linked = self._overlaps[matched_idx, matched_prev_idx] > 0
        return super()._process_matched_idx(
            instances, matched_idx[linked], matched_prev_idx[linked]
        )

    def _process_unmatched_idx(self, instances, matched_idx):
        linked = [i for i in matched_idx if instances.ID[i] is not None]
        return super()._process_unmatched_idx(instances, linked)

    def _process_unmatched_prev_idx(self, instances, matched_prev_idx):
        """Appends the tracks that were not found and still may be."""
        before, found = self._prev_instances, set(instances.ID)
        kept = [
            i
            for i, (identity, count) in enumerate(
                zip(before.ID, before.lost_frame_count, strict=True)
            )
            if identity not in found and count < self._max_lost_frame_count
        ]
        lost = _select(before, kept)
        lost.lost_frame_count = [count + 1 for count in lost.lost_frame_count]
        return Instances.cat([instances, lost])


def _select(instances: Instances, rows: list[int]) -> Instances:
    """Some rows of instances that have lists as fields, which Instances cannot index."""
    index = torch.tensor(rows, dtype=torch.int64)
    fields = {
        name: [value[i] for i in rows] if isinstance(value, list) else value[index]
        for name, value in instances.get_fields().items()
    }
    return Instances(instances.image_size, **fields)


def mask_iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two (H, W) bool masks; 0 if both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 0.0


def mean_flow(flow: np.ndarray, box: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """(2,) float32: the mean of (H, W, 2) flow inside a mask.

    Inside the box where there is no mask or an empty one; 0 where the box is outside the frame.
    """
    if mask is not None and mask.any():
        return np.array(cv2.mean(flow, mask.view(np.uint8))[:2], dtype=np.float32)
    x1, y1, x2, y2 = np.maximum(np.round(box), 0).astype(int)
    inside = flow[y1:y2, x1:x2]
    return inside.mean(axis=(0, 1)) if inside.size else np.zeros(2, dtype=np.float32)


def shift_mask(mask: np.ndarray, right: int, down: int) -> np.ndarray:
    """An (H, W) mask moved by whole pixels; what leaves the frame is gone."""
    height, width = mask.shape
    right, down = np.clip(right, -width, width), np.clip(down, -height, height)
    moved = np.zeros_like(mask)
    moved[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = mask[
        max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)
    ]
    return moved


# ---------------------------------------------------------------- tracks


class _Summaries:
    """The tracks as far as they were given out, in columns of numbers.

    They grow with the changes of action and not with the frames, and by some fifty bytes a change:
    a video of hours, whose tracks are many, still fits.
    """

    def __init__(self):
        # A row for each track; "latest" is the row of its latest segment.
        self._actors, self._frames, self._latest = array("q"), array("q"), array("q")
        self._totals = array("d")
        # A row for each segment.
        self._tracks, self._firsts, self._lasts = array("q"), array("q"), array("q")
        self._actions, self._sums = array("q"), array("d")

    def __len__(self) -> int:
        return len(self._actors)

    def start(self, actor: int) -> int:
        """Begins a track; gives its number."""
        self._actors.append(actor)
        self._frames.append(0)
        self._latest.append(-1)
        self._totals.append(0.0)
        return len(self) - 1

    def add(self, frame: int, instance: TrackedInstance) -> None:
        """Takes an instance of the track ``instance.track_id``."""
        track = instance.track_id
        self._frames[track] += 1
        self._totals[track] += instance.score
        row = self._latest[track]
        if row < 0 or frame != self._lasts[row] + 1 or instance.action != self._actions[row]:
            row = self._latest[track] = len(self._tracks)
            self._tracks.append(track)
            self._firsts.append(frame)
            self._lasts.append(frame)
            self._actions.append(instance.action)
            self._sums.append(0.0)
        self._lasts[row] = frame
        self._sums[row] += instance.pair_score

    def __iter__(self) -> Iterator[Track]:
        order = np.argsort(np.array(self._tracks), kind="stable")
        ends = np.cumsum(np.bincount(np.array(self._tracks), minlength=len(self))).tolist()
        for track, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            segments = tuple(self._segment(row) for row in order[start:end].tolist())
            yield Track(
                track_id=track,
                actor=self._actors[track],
                first=segments[0].first,
                last=segments[-1].last,
                frames=self._frames[track],
                score=self._totals[track] / self._frames[track],
                segments=segments,
            )

    def _segment(self, row: int) -> Segment:
        first, last = self._firsts[row], self._lasts[row]
        return Segment(first, last, self._actions[row], self._sums[row] / (last - first + 1))


@dataclass
class _LiveTrack:
    """A track that can still be found.

    Attributes:
        first: frame of its first detection.
        recent: (frame, action scores) of the detections within the smoothing window.
        shown: what was last detected.
        is_long: whether it is at least ``min_track_length`` long, which it then stays.
        has_ended: whether it can no longer be found.
        track_id: None until it is first given out.
    """

    first: int
    recent: deque[tuple[int, np.ndarray]] = field(default_factory=deque)
    shown: TrackedInstance | None = None
    is_long: bool = False
    has_ended: bool = False
    track_id: int | None = None


class Tracker:
    """Gives the instances of a video identities, frame after frame; one tracker a video.

    It keeps the tracks that can still be found, at most ``min_track_length`` frames and the frames
    between two detections, and of each track a summary that grows only when the action changes.
    """

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        score_threshold: float = ACTOR_THRESHOLD,
        iou_threshold: float = 0.3,
        smoothing: int = 5,
        patience: int = 5,
        min_track_length: int = 1,
    ):
        """
        Args:
            label_space: gives the valid actions of each actor.
            score_threshold: detections with a lower p(actor) are dropped before linking.
            iou_threshold: least box IoU of a detection and the track it continues.
            smoothing: action scores are the mean of those detected on the last so many frames, the
                present one included; 0 or 1 leaves them as they are.
            patience: on how many frames with detections a track may be missed and still be found
                again. It is not in the output meanwhile.
            min_track_length: tracks of fewer frames from first to last detection are dropped. Until
                a track is so long it must be found on every frame with detections, so that a frame
                is held back for ``min_track_length`` - 1 frames at most (and until the next
                detection).

        Raises:
            ValueError: a value is out of range; names it.
        """
        if not (isinstance(score_threshold, numbers.Real) and 0 <= score_threshold <= 1):
            raise ValueError(f"score_threshold is {score_threshold}; it must be from 0 to 1")
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold is {iou_threshold}; it must be above 0 and at most 1")
        for name, value, least in (
            ("smoothing", smoothing, 0),
            ("patience", patience, 0),
            ("min_track_length", min_track_length, 1),
        ):
            if not (isinstance(value, numbers.Integral) and value >= least):
                raise ValueError(f"{name} is {value}; it must be a whole number from {least} on")
        self.label_space = label_space
        self.score_threshold = score_threshold
        self.smoothing = smoothing
        self.min_track_length = min_track_length
        self._linker = ActorTracker(iou_threshold=iou_threshold, patience=patience)
        self._alive: dict[int, _LiveTrack] = {}  # by the linker's ID
        self._pending: deque[tuple[FrameResult, list[tuple[_LiveTrack, TrackedInstance]]]] = deque()
        self._summaries = _Summaries()

    def update(self, result: FrameResult) -> list[tuple[FrameResult, list[TrackedInstance]]]:
        """Takes the next frame.

        Args:
            result: of the frame. Without ``instances`` the tracks that the last detection found are
                carried by its flow; without a flow they stay where they are.

        Returns:
            The frames that are now final, in order, each with its instances: this one alone with a
            ``min_track_length`` of 1.
        """
        if result.flow is not None:
            self._linker.carry(result.flow)
        if result.instances is None:
            instances = self._carried(result.frame.shape[:2])
        else:
            instances = self._detected(result.index, result.instances)
        self._pending.append((result, instances))
        return self._release()

    def finish(self) -> list[tuple[FrameResult, list[TrackedInstance]]]:
        """Ends the video: the frames that were held back, without tracks that stayed too short."""
        for track in self._alive.values():
            track.has_ended = True
        self._alive.clear()
        return self._release()

    @property
    def num_tracks(self) -> int:
        """How many tracks the frames given out so far have."""
        return len(self._summaries)

    def summaries(self) -> Iterator[Track]:
        """The tracks on the frames given out so far, by ``track_id``, made one at a time."""
        return iter(self._summaries)

    def _detected(
        self, frame: int, instances: Instances
    ) -> list[tuple[_LiveTrack, TrackedInstance]]:
        """Links the detections of a frame."""
        found = instances[instances.scores >= self.score_threshold]
        names = ("pred_boxes", "pred_classes", "scores", "pred_masks")
        fields = {name: found.get(name) for name in names if found.has(name)}
        linked = self._linker.update(Instances(found.image_size, **fields))
        identities = linked.ID[: len(found)]  # what follows are the tracks that were not found
        tracks = [self._alive.setdefault(i, _LiveTrack(first=frame)) for i in identities]
        action_scores = found.action_scores.float().numpy()
        for i, track in enumerate(tracks):
            track.is_long = track.is_long or frame - track.first + 1 >= self.min_track_length
            track.recent.append((frame, action_scores[i].copy()))
            while track.recent[0][0] <= frame - max(self.smoothing, 1):
                track.recent.popleft()
            action_scores[i] = np.mean([scores for _, scores in track.recent], axis=0)
        self._end(set(linked.ID), set(identities))
        predictions = FramePredictions(
            boxes=found.pred_boxes.tensor.float().numpy(),
            actors=found.pred_classes.numpy(),
            scores=found.scores.float().numpy(),
            action_scores=action_scores,
            segmentations=[None] * len(found),
        )
        actions, _ = best_actions(predictions, self.label_space)
        for i, track in enumerate(tracks):
            track.shown = TrackedInstance(
                track_id=-1,  # given when the frame is
                actor=int(predictions.actors[i]),
                action=int(actions[i]),
                score=float(predictions.scores[i]),
                action_scores=action_scores[i],
                bbox=predictions.boxes[i],
                mask=found.pred_masks[i].numpy() if found.has("pred_masks") else None,
                carried=False,
            )
        return [(track, track.shown) for track in tracks]

    def _end(self, findable: set[int], found: set[int]) -> None:
        """Ends the tracks that are lost for good, or were lost before they were long enough."""
        short = {i for i in findable - found if not self._alive[i].is_long}
        if short:
            self._linker.forget(short)
        for i in self._alive.keys() - (findable - short):
            self._alive.pop(i).has_ended = True

    def _carried(self, size: tuple[int, int]) -> list[tuple[_LiveTrack, TrackedInstance]]:
        """The tracks that the last detection found, where they are now, if inside the frame."""
        rows = self._linker.tracks
        if rows is None:
            return []
        height, width = size
        instances = []
        for i, (identity, lost) in enumerate(zip(rows.ID, rows.lost_frame_count, strict=True)):
            box = rows.pred_boxes.tensor[i].numpy().clip(0, (width, height, width, height))
            if not lost and (box[2:] > box[:2]).all():
                track = self._alive[identity]
                mask = rows.pred_masks[i].numpy().copy() if rows.has("pred_masks") else None
                shown = replace(track.shown, bbox=box, mask=mask, carried=True)
                instances.append((track, shown))
        return instances

    def _release(self) -> list[tuple[FrameResult, list[TrackedInstance]]]:
        """The frames from the front on whose tracks are known to be long enough or too short."""
        released = []
        while self._pending and all(
            track.is_long or track.has_ended for track, _ in self._pending[0][1]
        ):
            result, instances = self._pending.popleft()
            kept = [(track, instance) for track, instance in instances if track.is_long]
            released.append((result, [self._summarise(result.index, *x) for x in kept]))
        return released

    def _summarise(
        self, frame: int, track: _LiveTrack, instance: TrackedInstance
    ) -> TrackedInstance:
        """Adds an instance to the summary of its track, whose number it gets."""
        if track.track_id is None:
            track.track_id = self._summaries.start(instance.actor)
        instance = replace(instance, track_id=track.track_id)
        self._summaries.add(frame, instance)
        return instance
