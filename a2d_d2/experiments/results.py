"""All records together: means over seeds, and what the tables and pictures are made of."""

import math
from collections.abc import Mapping, Sequence

from a2d_d2.evaluation.zero_shot import actor_precision, performance_ratio
from a2d_d2.experiments.systems import ZERO_SHOT, all_systems
from a2d_d2.label_space import LabelSpace


def summarize_records(records: Sequence[Mapping]) -> dict:
    """The content of ``results.json``; the same records give the same content.

    Returns:
        "experiment", "base", "data", "label_space" of all records; "systems": by name "title",
        "seeds", "figures" ("mean" and, from two seeds on, the sample "std", both in the shape of a
        record's figures) and the "records" themselves, in order of seeds; "zero_shot": by actor
        "zero_shot", "full", "chance" (mean APs in percent, None where not run) and "r_zs", of
        those means.
    """
    first = records[0]
    space = LabelSpace.from_dict(first["label_space"])
    systems = {}
    for name, system in all_systems(space).items():
        own = sorted((r for r in records if r["system"] == name), key=lambda r: r["seed"])
        if own:
            figures = [record["figures"] for record in own]
            systems[name] = {
                "title": system.title,
                "seeds": [record["seed"] for record in own],
                "figures": {
                    "mean": combine(figures, _mean),
                    "std": combine(figures, _std) if len(own) > 1 else None,
                },
                "records": own,
            }
    shared = {key: first[key] for key in ("experiment", "base", "data", "label_space")}
    return {**shared, "systems": systems, "zero_shot": _zero_shot(systems, space)}


def combine(values: Sequence, function) -> dict | float | None:
    """Applies ``function`` to the corresponding numbers of nested mappings of one shape.

    A number that any of them lacks (None, or no such key) is None.
    """
    if any(isinstance(value, Mapping) for value in values):
        keys = dict.fromkeys(key for value in values for key in (value or {}))
        return {
            key: combine([(value or {}).get(key) for value in values], function) for key in keys
        }
    return None if any(not _is_number(value) for value in values) else function(values)


def lookup(figures: Mapping | None, *path: str) -> float | None:
    """The number at ``path`` of nested mappings, None where there is none."""
    for key in path:
        figures = (figures or {}).get(key)
    return figures if _is_number(figures) else None


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _std(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _zero_shot(systems: Mapping, space: LabelSpace) -> dict:
    """The figures of section 4.4 for each actor, of those that have any."""

    def precision(name: str, actor: str) -> float | None:
        if name not in systems:
            return None
        pairs = systems[name]["figures"]["mean"]["official"]["per_class"]["detection"]["joint"]
        return actor_precision(pairs, actor, space)

    chance = {}
    if "full" in systems:
        chance = combine([record["chance"] for record in systems["full"]["records"]], _mean)
    result = {}
    for actor in space.actors:
        if ZERO_SHOT + actor in systems:
            held_out, full = precision(ZERO_SHOT + actor, actor), precision("full", actor)
            result[actor] = {
                "zero_shot": held_out,
                "full": full,
                "chance": chance.get(actor),
                "r_zs": None if full is None else performance_ratio(held_out, full),
            }
    return result
