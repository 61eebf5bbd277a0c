"""Tracks of hand-made instances on frames of 20 x 30 pixels."""

import itertools

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances, pairwise_iou

from a2d_d2.inference.tracks import Segment, Tracker, mask_iou, shift_mask, track_color
from a2d_d2.inference.types import FrameResult
from a2d_d2.label_space import LabelSpace

HEIGHT, WIDTH = 20, 30
CAT, DOG = 0, 1
EATING, FLYING, RUNNING = 0, 1, 2
SPACE = LabelSpace.from_dict(
    {
        "actors": ["cat", "dog"],
        "actions": ["eating", "flying", "running"],
        "valid": {"cat": ["eating", "running"]},
    }
)
EVEN = (0.6, 0.0, 0.4)


def box_mask(box):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    x1, y1, x2, y2 = box
    mask[y1:y2, x1:x2] = True
    return mask


def found(box, actor=CAT, score=0.9, actions=EVEN, mask="box"):
    """One detection; its mask is the box unless another one, or None, is given."""
    return box, actor, score, actions, box_mask(box) if isinstance(mask, str) else mask


def frame(index, *detections, flow=None, detected=True):
    """A FrameResult; ``flow`` is (x, y) of all pixels, or an array."""
    instances = None
    if detected:
        boxes, actors, scores, actions, masks = (
            zip(*detections, strict=True) if detections else ([[]] * 5)
        )
        instances = Instances((HEIGHT, WIDTH))
        instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        instances.scores = torch.tensor(scores)
        instances.pred_classes = torch.tensor(actors, dtype=torch.int64)
        instances.action_scores = torch.tensor(actions).reshape(-1, 3)
        instances.pred_actions = torch.zeros(len(boxes), dtype=torch.int64)
        if not masks or masks[0] is not None:
            masks = np.array(masks, dtype=bool).reshape(-1, HEIGHT, WIDTH)
            instances.pred_masks = torch.from_numpy(masks)
    if flow is not None and not isinstance(flow, np.ndarray):
        flow = np.broadcast_to(np.array(flow, np.float32), (HEIGHT, WIDTH, 2)).copy()
    picture = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    return FrameResult(index, index / 25, picture, flow, instances)


def run(tracker, frames):
    """Per frame its instances, of all that was given out."""
    given = [x for result in frames for x in tracker.update(result)] + tracker.finish()
    assert [result.index for result, _ in given] == [result.index for result in frames]
    return [instances for _, instances in given]


def identities(frames, **options):
    options = {"smoothing": 0} | options
    return [[x.track_id for x in instances] for instances in run(Tracker(SPACE, **options), frames)]


# ---------------------------------------------------------------- linking


def test_detections_are_linked_by_overlap_whatever_their_order():
    near, far = (0, 0, 10, 10), (15, 5, 25, 15)
    frames = [
        frame(0, found(near), found(far)),
        frame(1, found((16, 5, 26, 15)), found((1, 0, 11, 10))),
        frame(2, found((2, 0, 12, 10)), found((17, 5, 27, 15))),
    ]
    assert identities(frames) == [[0, 1], [1, 0], [0, 1]]


def test_crossing_actors_keep_their_identities_with_the_flow():
    """Two boxes of 6 pixels pass each other at 4 pixels a frame, one below the other by 3."""
    frames = []
    for t in range(5):
        right, left = (4 * t, 4, 4 * t + 6, 10), (18 - 4 * t, 7, 24 - 4 * t, 13)
        flow = np.zeros((HEIGHT, WIDTH, 2), np.float32)
        if t:  # on the grid of the frame before; the one that goes left is in front
            flow[box_mask((4 * t - 4, 4, 4 * t + 2, 10))] = (4, 0)
            flow[box_mask((22 - 4 * t, 7, 28 - 4 * t, 13))] = (-4, 0)
        frames.append(frame(t, found(right), found(left), flow=flow))
    assert identities(frames) == [[0, 1]] * 5


def test_the_largest_sum_of_overlaps_wins_and_not_the_greedy_choice():
    frames = [
        frame(0, found((0, 0, 10, 9), mask=None), found((0, 1, 10, 9), mask=None)),
        frame(1, found((0, 0, 10, 10), mask=None), found((0, 0, 10, 8), mask=None)),
    ]
    # The first detection has IoU 0.9 and 0.8 with the two tracks, the second 80/90 and 70/90.
    assert identities(frames) == [[0, 1], [1, 0]]


@pytest.mark.parametrize("seed", range(8))
def test_links_are_those_of_an_exhaustive_search(seed):
    draw = np.random.default_rng(seed)
    corners = draw.uniform(0, 8, (2, 4, 2))  # four boxes on each of two frames
    boxes = np.concatenate([corners, corners + draw.uniform(8, 12, (2, 4, 2))], axis=2)
    frames = [
        frame(t, *[found(tuple(box), mask=None) for box in boxes[t].tolist()]) for t in (0, 1)
    ]
    overlap = pairwise_iou(*(Boxes(torch.tensor(x, dtype=torch.float32)) for x in boxes)).numpy()
    overlap = np.where(overlap >= 0.4, overlap, 0)  # (before, now)
    best = max(itertools.permutations(range(4)), key=lambda now: overlap[range(4), now].sum())
    expected = {(i, j) for i, j in enumerate(best) if overlap[i, j]}
    before, now = identities(frames, iou_threshold=0.4)
    assert {(before.index(x), j) for j, x in enumerate(now) if x in before} == expected


def test_one_good_link_is_not_given_up_for_two_poor_ones():
    """IoU 0.9 of the first with the first; 0.31 and 0.33 crosswise; 0 of the second pair."""
    frames = [
        frame(0, found((8, 0, 18, 10), mask=None), found((13, 0, 23, 10), mask=None)),
        frame(1, found((8, 0, 18, 9), mask=None), found((3, 0, 13, 10), mask=None)),
    ]
    assert identities(frames) == [[0, 1], [0, 2]]


def test_masks_decide_where_boxes_tie():
    """Two actors fill the same box, one its upper, one its lower half; the order is exchanged."""
    box = (5, 4, 15, 14)
    upper, lower = box_mask((5, 4, 15, 9)), box_mask((5, 9, 15, 14))
    first = frame(0, found(box, mask=upper), found(box, mask=lower))
    frames = [first, frame(1, found(box, mask=lower), found(box, mask=upper))]
    assert identities(frames) == [[0, 1], [1, 0]]
    frames = [first, frame(1, found(box, mask=upper), found(box, mask=lower))]
    assert identities(frames) == [[0, 1], [0, 1]]


def test_masks_do_not_overrule_boxes_that_differ_clearly():
    """Box IoU 1 against 0.6; masks say the opposite, and weigh a tenth."""
    wide, narrow = (0, 0, 10, 10), (0, 0, 10, 6)
    one, other = box_mask((0, 0, 10, 1)), box_mask((0, 5, 10, 6))
    frames = [
        frame(0, found(wide, mask=one), found(narrow, mask=other)),
        frame(1, found(wide, mask=other), found(narrow, mask=one)),
    ]
    assert identities(frames) == [[0, 1], [0, 1]]


@pytest.mark.parametrize("width, same", [(3, True), (2, False)])
def test_boxes_link_from_the_threshold_on(width, same):
    frames = [
        frame(0, found((0, 0, 10, 10), mask=None)),
        frame(1, found((0, 0, width, 10), mask=None)),
    ]
    assert (identities(frames, iou_threshold=0.3) == [[0], [0]]) == same


def test_another_actor_starts_another_track_and_the_first_goes_on_after():
    box = (5, 5, 15, 15)
    frames = [frame(0, found(box)), frame(1, found(box, DOG)), frame(2, found(box))]
    tracker = Tracker(SPACE, patience=1)
    assert [[(x.track_id, x.actor) for x in xs] for xs in run(tracker, frames)] == [
        [(0, CAT)],
        [(1, DOG)],
        [(0, CAT)],
    ]
    assert [(x.actor, x.first, x.last, x.frames) for x in tracker.summaries()] == [
        (CAT, 0, 2, 2),
        (DOG, 1, 1, 1),
    ]


@pytest.mark.parametrize("patience, last", [(0, 1), (1, 1), (2, 0), (3, 0)])
def test_a_track_missed_on_two_frames_is_found_again_with_patience(patience, last):
    box = (5, 5, 15, 15)
    frames = [frame(0, found(box)), frame(1), frame(2), frame(3, found(box))]
    assert identities(frames, patience=patience) == [[0], [], [], [last]]


def test_patience_starts_anew_when_a_track_is_found():
    box = (5, 5, 15, 15)
    frames = [frame(i, *([found(box)] if i % 2 == 0 else [])) for i in range(7)]
    assert identities(frames, patience=1) == [[0], [], [0], [], [0], [], [0]]


def test_weak_detections_are_dropped_before_linking():
    box = (5, 5, 15, 15)
    frames = [frame(0, found(box, score=0.5), found(box, score=0.49)), frame(1, found(box))]
    assert identities(frames, score_threshold=0.5) == [[0], [0]]


# ---------------------------------------------------------------- actions


def test_action_scores_are_the_mean_over_the_window_behind():
    box = (5, 5, 15, 15)
    scores = [(0.9, 0.0, 0.1), (0.3, 0.0, 0.7), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)]
    frames = [frame(i, found(box, actions=x)) for i, x in enumerate(scores)]
    given = run(Tracker(SPACE, smoothing=3), frames)
    means = [(0.9, 0.0, 0.1), (0.6, 0.0, 0.4), (0.4, 0.0, 0.6), (1.3 / 3, 0.0, 1.7 / 3)]
    for (instance,), mean in zip(given, means, strict=True):
        np.testing.assert_allclose(instance.action_scores, mean, atol=1e-6)
        assert instance.action_scores.dtype == np.float32
    assert [x.action for (x,) in given] == [EATING, EATING, RUNNING, RUNNING]
    assert given[1][0].pair_score == pytest.approx(0.9 * 0.6)


@pytest.mark.parametrize("smoothing", [0, 1])
def test_smoothing_can_be_off(smoothing):
    box, scores = (5, 5, 15, 15), [(0.9, 0.0, 0.1), (0.3, 0.0, 0.7)]
    frames = [frame(i, found(box, actions=x)) for i, x in enumerate(scores)]
    for (instance,), expected in zip(
        run(Tracker(SPACE, smoothing=smoothing), frames), scores, strict=True
    ):
        np.testing.assert_array_equal(instance.action_scores, np.float32(expected))


def test_frames_without_the_track_do_not_lengthen_the_window():
    """Window of 2: on frame 2 the track was last seen on frame 0, which is outside."""
    box = (5, 5, 15, 15)
    frames = [
        frame(0, found(box, actions=(1.0, 0.0, 0.0))),
        frame(1),
        frame(2, found(box, actions=(0.0, 0.0, 1.0))),
    ]
    given = run(Tracker(SPACE, smoothing=2), frames)
    assert given[2][0].track_id == 0
    np.testing.assert_array_equal(given[2][0].action_scores, [0, 0, 1])


def test_the_action_is_the_best_valid_one_of_the_actor():
    scores = (0.1, 0.6, 0.3)
    cat = found((0, 0, 10, 10), CAT, actions=scores)
    dog = found((15, 0, 25, 10), DOG, actions=scores)
    (given,) = run(Tracker(SPACE), [frame(0, cat, dog)])
    assert [x.action for x in given] == [RUNNING, FLYING]


# ---------------------------------------------------------------- frames between detections


def test_tracks_are_carried_by_the_mean_flow_inside_the_mask():
    """The mask is the left half of the box, where the flow is (2, 1) and (4, 1): (3, 1)."""
    box, mask = (4, 4, 8, 10), box_mask((4, 4, 6, 10))
    flow = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    flow[4:10, 4], flow[4:10, 5] = (2, 1), (4, 1)
    frames = [
        frame(0, found(box, mask=mask, score=0.8)),
        frame(1, flow=flow, detected=False),
        frame(2, found((7, 5, 11, 11), mask=box_mask((7, 5, 9, 11)), score=0.7)),
    ]
    (before,), (carried,), (after,) = run(Tracker(SPACE), frames)
    assert [before.carried, carried.carried, after.carried] == [False, True, False]
    assert [before.track_id, carried.track_id, after.track_id] == [0, 0, 0]
    np.testing.assert_allclose(carried.bbox, (7, 5, 11, 11), atol=1e-5)
    np.testing.assert_array_equal(carried.mask, box_mask((7, 5, 9, 11)))
    assert carried.score == pytest.approx(0.8)
    np.testing.assert_array_equal(carried.action_scores, before.action_scores)
    np.testing.assert_allclose(before.bbox, box)  # what was given out stays as it is
    np.testing.assert_array_equal(before.mask, mask)


def test_parts_of_a_pixel_add_up():
    """0.4 pixels a frame: the mask moves by 0, 1, 1, 2 pixels, the box by 0.4, 0.8, 1.2, 1.6."""
    box = (4, 4, 8, 8)
    frames = [frame(0, found(box))]
    frames += [frame(i, flow=(0.4, 0), detected=False) for i in range(1, 5)]
    given = run(Tracker(SPACE), frames)
    for i, moved in enumerate([0, 0, 1, 1, 2]):
        (instance,) = given[i]
        np.testing.assert_array_equal(instance.mask, box_mask((4 + moved, 4, 8 + moved, 8)))
        np.testing.assert_allclose(instance.bbox, (4 + 0.4 * i, 4, 8 + 0.4 * i, 8), atol=1e-5)


def test_without_a_mask_the_box_is_carried_by_the_flow_inside_it():
    flow = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    flow[4:8, 4:6], flow[4:8, 6:8] = (0, 2), (0, 4)
    frames = [
        frame(0, found((4, 4, 8, 8), mask=None)),
        frame(1, flow=flow, detected=False),
        frame(2, detected=False),  # without a flow it stays
    ]
    _, (carried,), (still,) = run(Tracker(SPACE), frames)
    np.testing.assert_allclose(carried.bbox, (4, 7, 8, 11))
    assert carried.mask is None
    np.testing.assert_array_equal(still.bbox, carried.bbox)


def test_a_track_that_leaves_the_frame_is_cut_off_and_then_not_shown():
    frames = [frame(0, found((20, 5, 28, 12)))]
    frames += [frame(i, flow=(6, 0), detected=False) for i in (1, 2)]
    _, (partly,), gone = run(Tracker(SPACE), frames)
    np.testing.assert_array_equal(partly.bbox, (26, 5, 30, 12))
    np.testing.assert_array_equal(partly.mask, box_mask((26, 5, 30, 12)))
    assert gone == []


def test_a_track_that_the_last_detection_missed_is_not_carried():
    box = (5, 5, 15, 15)
    frames = [
        frame(0, found(box)),
        frame(1),
        frame(2, detected=False),
        frame(3, found(box)),
        frame(4, detected=False),
    ]
    assert identities(frames) == [[0], [], [], [0], [0]]


def test_carrying_finds_what_moved_too_far_to_overlap():
    frames = [
        frame(0, found((0, 0, 6, 6))),
        frame(1, flow=(8, 0), detected=False),
        frame(2, found((16, 0, 22, 6)), flow=(8, 0)),
    ]
    assert identities(frames) == [[0], [0], [0]]


@pytest.mark.parametrize(
    "right, down, box",
    [
        (2, -3, (7, 2, 17, 12)),
        (-30, 0, (0, 0, 0, 0)),
        (99, 99, (0, 0, 0, 0)),
        (0, 8, (5, 13, 15, 20)),
    ],
)
def test_shift_mask(right, down, box):
    np.testing.assert_array_equal(shift_mask(box_mask((5, 5, 15, 15)), right, down), box_mask(box))


def test_mask_iou():
    assert mask_iou(box_mask((0, 0, 2, 2)), box_mask((1, 0, 3, 2))) == pytest.approx(2 / 6)
    assert mask_iou(box_mask((0, 0, 0, 0)), box_mask((0, 0, 0, 0))) == 0


# ---------------------------------------------------------------- short tracks


def test_short_tracks_are_dropped_and_frames_wait_for_the_decision():
    box, other = (5, 5, 15, 15), (18, 5, 28, 15)
    tracker = Tracker(SPACE, min_track_length=3, patience=5)
    # A lasts; B is seen on frames 1 and 2 alone.
    frames = [frame(i, found(box), *([found(other)] if i in (1, 2) else [])) for i in range(5)]
    given = [tracker.update(x) for x in frames]
    assert [[result.index for result, _ in xs] for xs in given] == [[], [], [0], [1, 2, 3], [4]]
    assert [[x.track_id for x in xs] for step in given for _, xs in step] == [[0]] * 5
    assert tracker.finish() == []
    (track,) = tracker.summaries()
    assert (track.track_id, track.first, track.last, track.frames) == (0, 0, 4, 5)


def test_a_track_that_is_long_enough_may_be_lost_and_found():
    box = (5, 5, 15, 15)
    frames = [frame(i, *([found(box)] if i != 2 else [])) for i in range(4)]
    assert identities(frames, min_track_length=2) == [[0], [0], [], [0]]
    # Two frames are too short when it is missed, so what comes after is another track.
    assert identities(frames, min_track_length=4) == [[], [], [], []]


def test_length_counts_frames_between_detections_but_not_those_after_the_last():
    box = (5, 5, 15, 15)
    frames = [frame(i, found(box)) if i % 3 == 0 else frame(i, detected=False) for i in range(6)]
    assert identities(frames, min_track_length=4) == [[0]] * 6
    assert identities(frames, min_track_length=5) == [[]] * 6
    assert identities(frames[:3], min_track_length=2) == [[]] * 3


def test_identities_have_no_holes_when_tracks_are_dropped():
    box, other = (5, 5, 15, 15), (18, 5, 28, 15)
    frames = [frame(0, found(other)), frame(1, found(box)), frame(2, found(box))]
    assert identities(frames, min_track_length=2) == [[], [0], [0]]


# ---------------------------------------------------------------- summaries


def test_timeline_by_hand():
    box = (5, 5, 15, 15)
    eats, runs = (0.8, 0.0, 0.2), (0.4, 0.0, 0.6)
    frames = [
        frame(0, found(box, score=1.0, actions=eats)),
        frame(1, found(box, score=0.8, actions=eats)),
        frame(2, found(box, score=0.9, actions=runs)),
        frame(3),
        frame(4, found(box, score=0.7, actions=runs)),
        frame(5, detected=False),
    ]
    tracker = Tracker(SPACE, smoothing=0)
    run(tracker, frames)
    (track,) = tracker.summaries()
    assert (track.track_id, track.actor, track.first, track.last) == (0, CAT, 0, 5)
    assert track.frames == 5
    assert track.score == pytest.approx((1.0 + 0.8 + 0.9 + 0.7 + 0.7) / 5)
    expected = [
        Segment(0, 1, EATING, 0.8 * 0.9),
        Segment(2, 2, RUNNING, 0.6 * 0.9),
        Segment(4, 5, RUNNING, 0.6 * 0.7),  # frame 3 is missing
    ]
    assert [(x.first, x.last, x.action) for x in track.segments] == [
        (x.first, x.last, x.action) for x in expected
    ]
    assert [x.score for x in track.segments] == pytest.approx([x.score for x in expected])


def test_summaries_of_tracks_that_come_and_go():
    """Two actors take turns on frames and change their actions; their segments interleave."""
    left, right = (2, 2, 12, 12), (16, 4, 26, 14)
    eats, runs = (0.9, 0.0, 0.1), (0.1, 0.0, 0.9)
    frames = [
        frame(0, found(left, actions=eats)),
        frame(1, found(left, actions=runs), found(right, actions=eats)),
        frame(2, found(left, actions=eats), found(right, actions=eats)),
        frame(3, found(right, actions=runs)),
    ]
    tracker = Tracker(SPACE, smoothing=0)
    run(tracker, frames)
    tracks = list(tracker.summaries())
    assert tracker.num_tracks == 2
    assert [(x.track_id, x.first, x.last, x.frames) for x in tracks] == [(0, 0, 2, 3), (1, 1, 3, 3)]
    assert [[(x.first, x.last, x.action) for x in track.segments] for track in tracks] == [
        [(0, 0, EATING), (1, 1, RUNNING), (2, 2, EATING)],
        [(1, 2, EATING), (3, 3, RUNNING)],
    ]


def test_one_frame():
    tracker = Tracker(SPACE)
    ((instance,),) = run(tracker, [frame(0, found((5, 5, 15, 15)))])
    assert instance.track_id == 0
    np.testing.assert_array_equal(instance.bbox, np.float32((5, 5, 15, 15)))
    np.testing.assert_array_equal(instance.mask, box_mask((5, 5, 15, 15)))
    (track,) = tracker.summaries()
    assert (track.first, track.last, len(track.segments)) == (0, 0, 1)


def test_nothing_detected():
    tracker = Tracker(SPACE)
    assert run(tracker, [frame(0), frame(1, detected=False), frame(2)]) == [[], [], []]
    assert list(tracker.summaries()) == [] and tracker.num_tracks == 0
    tracker = Tracker(SPACE)
    assert run(tracker, [frame(0, detected=False, flow=(1, 1))]) == [[]]
    assert Tracker(SPACE).finish() == []


def test_state_is_bounded_over_ten_thousand_frames():
    """Detections on every tenth frame. One actor stays and acts alike; another flickers."""
    box, other = (2, 2, 12, 12), (16, 4, 26, 14)
    steady = frame(0, found(box)).instances
    both = frame(0, found(box), found(other)).instances
    picture, flow = frame(0).frame, np.zeros((HEIGHT, WIDTH, 2), np.float32)
    tracker, held, most_held = Tracker(SPACE, min_track_length=12), 0, 0
    for i in range(10_000):
        instances = None if i % 10 else both if i % 30 == 0 else steady
        held += 1 - len(tracker.update(FrameResult(i, i / 25, picture, flow, instances)))
        most_held = max(most_held, held)
        assert len(tracker._alive) <= 2 and len(tracker._linker.tracks) <= 2
    assert most_held == 20  # as long as the first track is not yet known to last
    assert len(tracker.finish()) == held
    (track,) = tracker.summaries()
    assert (track.frames, len(track.segments)) == (10_000, 1)


def test_colors_of_identities_differ():
    colors = [track_color(i) for i in range(12)]
    assert len(set(colors)) == 12
    assert all(0 <= channel <= 255 for color in colors for channel in color)
    assert track_color(3) == colors[3]
    for first, second in zip(colors, colors[1:], strict=False):
        assert np.abs(np.subtract(first, second)).sum() > 100


@pytest.mark.parametrize(
    "options",
    [
        {"score_threshold": 1.5},
        {"score_threshold": float("nan")},
        {"iou_threshold": 0},
        {"smoothing": -1},
        {"patience": -1},
        {"min_track_length": 0},
    ],
)
def test_values_out_of_range_are_named(options):
    (name,) = options
    with pytest.raises(ValueError, match=name):
        Tracker(SPACE, **options)
