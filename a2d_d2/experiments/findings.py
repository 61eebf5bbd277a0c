"""What the paper finds (sections 4.2 to 4.4), as comparisons of measured figures.

A finding is a difference of two systems' figures. "yes": the first is ahead by a point or more;
"no": behind by as much; "level": neither. Where there are several seeds, the difference must
also exceed its standard deviation. The actors "hardly change" while the difference is below three
points either way.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from a2d_d2.experiments import published
from a2d_d2.experiments.results import lookup

LEAST = 1.0  # points; what is less is level
UNCHANGED = 3.0  # points
_LEVELS = ("actor", "action", "joint")


@dataclass(frozen=True)
class Quantity:
    """A figure in percent, its mean over seeds and their standard deviation (None of one seed)."""

    mean: float
    std: float | None = None


@dataclass(frozen=True)
class Finding:
    """One claim of the paper and what was measured of it.

    Attributes:
        claim: what the paper says.
        figure: what is compared, such as "joint mIoU".
        name, value: the system of which it is said, as the tables call it, and its figure.
        other_name, other: the one that it is compared with.
        published: the difference in the paper; None where it gives none.
        is_same: whether the claim is that the two are about the same.
    """

    claim: str
    figure: str
    name: str
    value: Quantity
    other_name: str
    other: Quantity
    published: float | None
    is_same: bool = False

    @property
    def difference(self) -> float:
        return self.value.mean - self.other.mean

    @property
    def holds(self) -> str:
        """ "yes", "level" or "no", as the module describes it."""
        if self.is_same:
            return "yes" if abs(self.difference) < UNCHANGED else "no"
        spread = math.hypot(self.value.std or 0.0, self.other.std or 0.0)
        if abs(self.difference) < max(LEAST, spread):
            return "level"
        return "yes" if self.difference > 0 else "no"


# Claim, level of mIoU, system that the full model is compared with, whether the two are the same.
_SEGMENTATION = (
    ("each part adds to the whole", "joint", "no_mask_grabcut", False),
    ("each part adds to the whole", "joint", "no_temporal", False),
    ("each part adds to the whole", "joint", "no_flow", False),
    ("each part adds to the whole", "joint", "separate_training", False),
    ("actor and action apart, not as pairs", "joint", "mask_rcnn", False),
    ("actor and action apart, not as pairs", "joint", "mask_rcnn-equal_time", False),
    ("each part adds to the whole, at equal time", "joint", "no_temporal-equal_time", False),
    ("each part adds to the whole, at equal time", "joint", "no_flow-equal_time", False),
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
        claim: str, path: tuple[str, ...], name: str, paper: float | None, same=False
    ) -> None:
        values = [_measured(results, system, *path) for system in ("full", name)]
        if None not in values:
            titles = [results["systems"][system]["title"] for system in ("full", name)]
            pairs = [x for pair in zip(titles, values, strict=True) for x in pair]
            findings.append(Finding(claim, " ".join(path[1:]), *pairs, paper, same))

    for claim, level, name, is_same in _SEGMENTATION:
        difference = None
        if name in published.SEGMENTATION:
            full, other = (published.SEGMENTATION[x] for x in ("full", name))
            difference = full[_LEVELS.index(level)][2] - other[_LEVELS.index(level)][2]
        compare(claim, ("segmentation", level, "mIoU"), name, difference, is_same)
    for name in _DETECTION:
        difference = published.DETECTION["full"][2] - published.DETECTION[name][2]
        path = ("detection", "joint", "mAP")
        compare("ahead of the earlier detectors", path, name, difference)
    return findings + _zero_shot(results)


def _zero_shot(results: Mapping) -> list[Finding]:
    """Over the actors that were held out, whose figures are those of Figure 4."""
    known = [x for x in results["zero_shot"].values() if x["chance"] is not None]
    if not known:
        return []
    means = {
        key: Quantity(sum(x[key] for x in known) / len(known)) for key in ("zero_shot", "chance")
    }
    return [
        Finding(
            "actions of an actor are known from other actors",
            f"joint AP, mean of {len(known)}",
            "zero-shot",
            means["zero_shot"],
            "equal action scores",
            means["chance"],
            None,
        )
    ]


def _measured(results: Mapping, name: str, *path: str) -> Quantity | None:
    figures = results["systems"].get(name, {}).get("figures", {})
    mean, std = (lookup(figures.get(key), "official", *path) for key in ("mean", "std"))
    return None if mean is None else Quantity(mean, std)
