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
        "seeds" that both its network and the full model have (without the full model, those of its
        network), "zero_shot", "full", "chance" (mean APs of these seeds in percent, None where not
        run), "r_zs", of those means, "per_seed" (these four of each seed, "r_zs" of its own APs)
        and "std" (their sample deviations, None of a single seed).
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
                    "mean": combine(figures, mean),
                    "std": combine(figures, std) if len(own) > 1 else None,
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


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def std(values: Sequence[float]) -> float | None:
    """The standard deviation of a sample; of a single value it is not known, None."""
    if len(values) < 2:
        return None
    middle = mean(values)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1))


def _zero_shot(systems: Mapping, space: LabelSpace) -> dict:
    """The figures of section 4.4 for each actor, of those that have any."""
    full = {record["seed"]: record for record in systems.get("full", {}).get("records", ())}
    result = {}
    for actor in space.actors:
        own = {r["seed"]: r for r in systems.get(ZERO_SHOT + actor, {}).get("records", ())}
        seeds = sorted(own.keys() & full.keys()) or sorted(own)
        if seeds:
            figures = [_of_actor(own[seed], full.get(seed), actor, space) for seed in seeds]
            means = combine(figures, mean)
            means["r_zs"] = performance_ratio(means["zero_shot"], means["full"])
            deviations = combine(figures, std)
            result[actor] = {"seeds": seeds, **means, "std": deviations, "per_seed": figures}
    return result


def _of_actor(own: Mapping, full: Mapping | None, actor: str, space: LabelSpace) -> dict:
    """One seed's figures of an actor, from the records of its network and the full model."""

    def precision(record: Mapping) -> float:
        pairs = record["figures"]["official"]["per_class"]["detection"]["joint"]
        return actor_precision(pairs, actor, space)

    held_out, known = precision(own), full and precision(full)
    return {
        "zero_shot": held_out,
        "full": known,
        "chance": full and full["chance"][actor],
        "r_zs": performance_ratio(held_out, known),
    }
