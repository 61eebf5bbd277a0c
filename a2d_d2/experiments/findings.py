"""What the paper finds (sections 4.2 to 4.4), as comparisons of measured figures.

A finding is a difference of two systems' figures, seed by seed: only seeds that both have count.
"yes": the first is ahead on average by a point or more and, of several seeds, by at least the
standard deviation of the differences; "no": behind by as much; "level": neither. Two systems that
are said to be about the same are ("yes") where both that average and that deviation are less than a
point, are not ("no") where one is ahead, and else it is "undecided".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from a2d_d2.experiments import published
from a2d_d2.experiments.results import lookup, mean, std

LEAST = 1.0  # points; what is less is level
_LEVELS = ("actor", "action", "joint")


@dataclass(frozen=True)
class Finding:
    """One claim of the paper and what was measured of it.

    Attributes:
        claim: what the paper says.
        figure: what is compared, such as "joint mIoU".
        name, values: the system of which it is said, as the tables call it, and its figure in
            percent of each seed that both have.
        other_name, others: the one that it is compared with; in the same order.
        published: the difference in the paper; None where it gives none.
        is_same: whether the claim is that the two are about the same.
    """

    claim: str
    figure: str
    name: str
    values: Sequence[float]
    other_name: str
    others: Sequence[float]
    published: float | None
    is_same: bool = False

    @property
    def differences(self) -> list[float]:
        return [a - b for a, b in zip(self.values, self.others, strict=True)]

    @property
    def holds(self) -> str:
        """ "yes", "level", "no" or "undecided", as the module describes it."""
        difference, spread = mean(self.differences), std(self.differences) or 0.0
        is_level = abs(difference) < max(LEAST, spread)
        if self.is_same and is_level:
            return "yes" if max(abs(difference), spread) < LEAST else "undecided"
        if self.is_same:
            return "no"
        if is_level:
            return "level"
        return "yes" if difference > 0 else "no"


# Claim, level of mIoU, system that the full model is compared with, whether the two are the same.
_SEGMENTATION = (
    ("each part adds to the whole", "joint", "no_mask_grabcut", False),
    ("each part adds to the whole", "joint", "no_temporal", False),
    ("each part adds to the whole", "joint", "no_flow", False),
    ("each part adds to the whole", "joint", "separate_training", False),
    ("actor and action apart, not as pairs", "joint", "mask_rcnn", False),
    ("actor and action apart, not as pairs", "joint", "mask_rcnn-equal_time", False),
    ("each part adds to the whole, at equal time", "joint", "no_mask_grabcut-equal_time", False),
    ("each part adds to the whole, at equal time", "joint", "no_temporal-equal_time", False),
    ("each part adds to the whole, at equal time", "joint", "no_flow-equal_time", False),
    ("each part adds to the whole, at equal time", "joint", "separate_training-equal_time", False),
    ("actions need motion", "action", "no_flow", False),
    ("actors hardly need time", "actor", "no_temporal", True),
    ("actors hardly need motion", "actor", "no_flow", True),
)
_DETECTION = ("tsmt", "tshr", "tsct")


def find(results: Mapping) -> list[Finding]:
    """The findings on which there are figures.

    Args:
        results: of :func:`a2d_d2.experiments.results.summarize_records`.
    """
    findings = []

    def compare(
        claim: str, figure: str, path: tuple[str, ...], name: str, paper: float | None, same=False
    ) -> None:
        full, other = (_of_seeds(results, system, *path) for system in ("full", name))
        common = sorted(full.keys() & other.keys())
        if common:
            titles = [results["systems"][system]["title"] for system in ("full", name)]
            values = [[of[seed] for seed in common] for of in (full, other)]
            pairs = [x for pair in zip(titles, values, strict=True) for x in pair]
            findings.append(Finding(claim, figure, *pairs, paper, same))

    for claim, level, name, is_same in _SEGMENTATION:
        difference = None
        if name in published.SEGMENTATION:
            full, other = (published.SEGMENTATION[x] for x in ("full", name))
            difference = full[_LEVELS.index(level)][2] - other[_LEVELS.index(level)][2]
        figure = f"{level} mIoU"
        compare(
            claim, figure, ("official", "segmentation", level, "mIoU"), name, difference, is_same
        )
        if is_same:  # thresholds are chosen for the joint figure, and move that of actors
            path = ("default thresholds", "official", level, "mIoU")
            compare(claim, f"{figure}, default thresholds", path, name, difference, is_same)
    for name in _DETECTION:
        difference = published.DETECTION["full"][2] - published.DETECTION[name][2]
        for system, paper in ((name, difference), (f"{name}-equal_time", None)):
            claim = "ahead of the earlier detectors" + ", at equal time" * (paper is None)
            path = ("official", "detection", "joint", "mAP")
            compare(claim, "joint mAP", path, _with_weights_of(results, system), paper)
    return findings + _zero_shot(results)


def _with_weights_of(results: Mapping, name: str) -> str:
    """The system, or where it has no records one that evaluates the same weights."""
    systems = results["systems"]
    others = (x for x in systems if any(r["weights_of"] == name for r in systems[x]["records"]))
    return name if name in systems else next(others, name)


def _zero_shot(results: Mapping) -> list[Finding]:
    """Of each actor that was held out, with the means over seeds of Figure 4."""
    known = [x for x in results["zero_shot"].values() if x["chance"] is not None]
    if not known:
        return []
    of_actors = [[x[key] for x in known] for key in ("zero_shot", "chance")]
    return [
        Finding(
            "actions of an actor are known from other actors",
            f"joint AP, mean of {len(known)} actors",
            "zero-shot",
            [mean(of_actors[0])],
            "equal action scores",
            [mean(of_actors[1])],
            None,
        )
    ]


def _of_seeds(results: Mapping, name: str, *path: str) -> dict[int, float]:
    """The figure at ``path`` of each seed that has it."""
    records = results["systems"].get(name, {}).get("records", [])
    values = {record["seed"]: lookup(record["figures"], *path) for record in records}
    return {seed: value for seed, value in values.items() if value is not None}
