"""The paper's tables from ``results.json``, measured and published figures beside each other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from a2d_d2.experiments import findings, published
from a2d_d2.experiments.results import lookup, mean, std
from a2d_d2.experiments.systems import System, all_systems
from a2d_d2.label_space import LabelSpace

LEVELS = {"actor": "Actor", "action": "Action", "joint": "Joint (A,A)"}
SEGMENTATION = ("ave", "glo", "mIoU")
MEASURED, PUBLISHED, ONLY_PUBLISHED = "measured", "published", "published only"
MISSING = "-"
_OFFICIAL = [("official", "segmentation", k, metric) for k in LEVELS for metric in SEGMENTATION]
_OFFICIAL_DETECTION = [("official", "detection", level, "mAP") for level in LEVELS]
_DETECTION_COLUMNS = [("", [f"{title} mAP" for title in LEVELS.values()])]


@dataclass(frozen=True)
class Table:
    """A table, to be written as Markdown or HTML.

    Attributes:
        title: one line.
        note: protocol, data and thresholds.
        groups: headings over columns, with their columns.
        rows: name, where it is from ("" in tables without that column), and the cells.
        subject: what the names are of.
    """

    title: str
    note: str
    groups: Sequence[tuple[str, Sequence[str]]]
    rows: Sequence[tuple[str, str, Sequence[str]]]
    subject: str = "system"

    @property
    def has_source(self) -> bool:
        return any(source for _, source, _ in self.rows)

    def markdown(self) -> str:
        """Title, note and table."""
        columns = [f"{group} {name}".strip() for group, names in self.groups for name in names]
        source = ["figures"] if self.has_source else []
        rows = [[name, *([of] if self.has_source else []), *cells] for name, of, cells in self.rows]
        table = tabulate(
            rows,
            [self.subject, *source, *columns],
            tablefmt="github",
            disable_numparse=True,
            colalign=["left", *("left" for _ in source), *("right" for _ in columns)],
        )
        return f"### {self.title}\n\n{self.note}\n\n{table}"


def all_tables(results: Mapping) -> list[Table]:
    """Tables 1 to 3 and zero-shot by the official protocol, the others after them, and the cost."""
    tables = paper_tables(results)
    tables += [_med_vt(results), *_coco(results)]
    tables.append(_default_thresholds(results))
    tables.append(_cost(results))
    return [table for table in tables if table.rows]


def paper_tables(results: Mapping) -> list[Table]:
    """The paper's findings, Tables 1 to 3, what was measured at equal time and zero-shot, and
    whether training was long enough."""
    tables = [_findings(results), _table_1(results), _table_2(results), _table_3(results)]
    tables += [_equal_time(results), _equal_time_detection(results)]
    tables += [_zero_shot(results), _validation(results)]
    return [table for table in tables if table.rows]


def tables_markdown(results: Mapping) -> str:
    """The content of ``tables.md``."""
    parts = ["# Results", data_note(results)]
    parts += [table.markdown() for table in all_tables(results)]
    return "\n\n".join(parts) + "\n"


def readme_block(results: Mapping) -> str:
    """The paper's tables for the README."""
    parts = [data_note(results), *(table.markdown() for table in paper_tables(results))]
    parts.append(
        "Written by `python tools/run_experiments.py` and `python tools/update_readme.py` "
        "(`results/synthetic/results.json`)."
    )
    return "\n\n".join(parts)


def longer_block(results: Mapping) -> str:
    """What the README shows of trainings of more steps."""
    tables = [_findings(results), _table_3(results), *_coco(results), _validation(results)]
    parts = [table.markdown() for table in tables if table.rows]
    parts.append(
        "Written by `python tools/run_experiments.py` and `python tools/update_readme.py` "
        "(`results/synthetic_long/results.json`)."
    )
    return "\n\n".join(parts)


def data_note(results: Mapping) -> str:
    """What was measured on what."""
    data, base = results["data"], results["base"]
    counts = ", ".join(
        f"{data['videos'][split]} {words} videos ({data['frames'][split]} annotated frames)"
        for split, words in (("train", "training"), ("val", "held-out"), ("test", "test"))
        if split in data["videos"]
    )
    if any(len(system["seeds"]) > 1 for system in results["systems"].values()):
        counts += ". ±: standard deviation of a sample, of systems that have several seeds"
    if data["is_a2d"]:
        return f"A2D, base `{base}`: {counts}."
    name = "A synthetic release" if data["synthetic"] else f"A release of {data['label_space']}"
    return (
        f"{name}, base `{base}`: {counts}. **This is not A2D: the published figures are of A2D and "
        "are not comparable with the measured ones.**"
    )


# ---------------------------------------------------------------- official


def _table_1(results: Mapping) -> Table:
    rows = [
        (name, ONLY_PUBLISHED, _published_segmentation(name)) for name in published.ONLY_PUBLISHED
    ]
    rows += _pairs(results, ["full"], _published_segmentation, _OFFICIAL)
    return Table(
        "Table 1. Semantic segmentation",
        f"Official A2D protocol, percent; {_thresholds_note(results)} Published: "
        f"{published.SOURCE}.",
        [(title, SEGMENTATION) for title in LEVELS.values()],
        rows,
    )


def _table_2(results: Mapping) -> Table:
    detectors = [system for system in _systems(results) if not system.has_masks]
    rows = _pairs(
        results,
        ["tsct", "tshr", "tsmt", "full"],
        lambda name: [_number(value) for value in published.DETECTION[name]],
        _OFFICIAL_DETECTION,
    )
    return Table(
        "Table 2. Detection",
        "Official A2D protocol: mean average precision of boxes at an IoU of 0.5, percent. "
        f"Published: {published.SOURCE}.{_pairs_note(results, detectors)}",
        _DETECTION_COLUMNS,
        rows,
    )


def _table_3(results: Mapping) -> Table:
    names = ["full", "mask_rcnn", "no_mask_grabcut", "no_temporal", "no_flow", "separate_training"]
    return Table(
        "Table 3. Ablations, semantic segmentation",
        f"Official A2D protocol, percent; {_thresholds_note(results)} Published: "
        f"{published.SOURCE}; its system without mask head refines boxes with SharpMask, not "
        "GrabCut.",
        [(title, SEGMENTATION) for title in LEVELS.values()],
        _pairs(results, names, _published_segmentation, _OFFICIAL),
    )


def _equal_time(results: Mapping) -> Table:
    return Table(
        "Table 3 at equal time",
        "As Table 3, measured; each other system is also trained for as many steps as take the "
        'time of the full model ("equal time"). Without joint training: steps of both stages.',
        [(title, SEGMENTATION) for title in LEVELS.values()],
        _beside_longer(results, True, _OFFICIAL),
    )


def _equal_time_detection(results: Mapping) -> Table:
    return Table(
        "Table 2 at equal time",
        "As Table 2, measured; steps as in Table 3 at equal time.",
        _DETECTION_COLUMNS,
        _beside_longer(results, False, _OFFICIAL_DETECTION),
    )


def _beside_longer(
    results: Mapping, has_masks: bool, paths: Sequence[tuple[str, ...]]
) -> list[tuple[str, str, list[str]]]:
    """The full model's row, then two of each system that has a longer training."""
    rows = []
    for system in _systems(results):
        if system.longer_of and system.has_masks == has_masks:
            for name in (system.longer_of, system.name):
                steps = {r["training"]["steps"] for r in _records(results, name)}
                steps = ", ".join(map(str, sorted(steps))) or MISSING
                title = f"{_titles(results)[name]}, {steps} steps{_seeds(results, name)}"
                rows.append((title, "", _measured(results, name, paths)))
    return rows and [_row(results, "full", paths), *rows]


def _pairs(
    results: Mapping,
    names: Sequence[str],
    published_cells: Callable[[str], list[str]],
    paths: Sequence[tuple[str, ...]],
) -> list[tuple[str, str, list[str]]]:
    """Two rows a system: published, then measured, whose figures lie at ``paths``."""
    titles = _titles(results)
    rows = []
    for name in names:
        title = published.PUBLISHED_AS.get(name, titles[name])
        rows.append((title, PUBLISHED, published_cells(name)))
        source = MEASURED + _seeds(results, name)
        rows.append((titles[name], source, _measured(results, name, paths)))
    return rows


def _published_segmentation(name: str) -> list[str]:
    return [_number(value) for level in published.SEGMENTATION[name] for value in level]


def _pairs_note(results: Mapping, systems: Sequence[System]) -> str:
    """How detections of pairs are scored, if any of the systems finds pairs."""
    if not any(_has_pairs(_records(results, system.name)) for system in systems):
        return ""
    return (
        " Where pairs are the classes (TSCT, Mask R-CNN on pairs), a detection of one pair stands "
        "for the other pairs and the other actions of its actor too, with score 0, behind all "
        "others. An evaluation of each pair's own detections would not count it there: these "
        "systems can only gain by it."
    )


def _thresholds_note(results: Mapping) -> str:
    held_out = results["data"]["hold_out"]
    if held_out:
        return (
            "painting thresholds chosen for each run on the held-out training videos "
            f"(one of every {held_out})."
        )
    return "painting thresholds 0.7 (actor) and 0.3 (action), the defaults."


# ---------------------------------------------------------------- findings


def _findings(results: Mapping) -> Table:
    rows = [
        (
            x.claim,
            "",
            [
                x.figure,
                x.name,
                _number(mean(x.values)),
                x.other_name,
                _number(mean(x.others)),
                _number(mean(x.differences), std(x.differences), "+"),
                str(len(x.values)),
                MISSING if x.published is None else f"{x.published:+.1f}",
                x.holds,
            ],
        )
        for x in findings.find(results)
    ]
    columns = ["figure", "of", "value", "against", "value", "difference", "seeds", "in the paper"]
    return Table(
        "What the paper finds",
        "Differences seed by seed, of the seeds that both systems have. "
        f'"yes": ahead by {findings.LEAST:g} point or more and, of several seeds, by the standard '
        'deviation of the differences; "no": behind by as much; "level": neither. What should '
        "hardly change holds where average and deviation are less than a point, and is undecided "
        "where it is level all the same. A verdict of one seed is only that seed's.",
        [("", [*columns, "holds"])],
        rows,
        subject="finding",
    )


# ---------------------------------------------------------------- zero-shot


def _zero_shot(results: Mapping) -> Table:
    rows = []
    for actor, figures in results["zero_shot"].items():
        cells = [
            _number(figures[key], figures["std"][key], digits=2 if key == "r_zs" else 1)
            for key in ("zero_shot", "full", "chance", "r_zs")
        ]
        rows.append((actor, "", [*cells, str(len(figures["seeds"]))]))
    note = ""
    if any(len(figures["seeds"]) > 1 for figures in results["zero_shot"].values()):
        note = " r_zs is of these means, its deviation that of the seeds' own ratios."
    return Table(
        "Zero-shot recognition of actions",
        "Official A2D protocol: average precision of the pairs of an actor whose action labels "
        "were left out of training, averaged over its valid actions, percent; the same of the full "
        'model ("full") and of the full model with equal action scores ("chance"). r_zs = '
        f"zero-shot / full (equation 3). Means over the seeds that both networks have.{note}",
        [("", ["zero-shot AP", "full AP", "chance AP", "r_zs", "seeds"])],
        rows,
    )


# ---------------------------------------------------------------- length of training


def _validation(results: Mapping) -> Table:
    rows = []
    for system in _systems(results):
        if system.weights_of in results["systems"]:
            continue  # the same training
        records = _records(results, system.name)
        name = validation_metric(system, records).format("joint")
        curves = [record["validation"].get(name, []) for record in records]
        found = [_half_and_end(curve) for curve in curves if len(curve) > 1]
        if found:
            half, last, end = zip(*found, strict=True)
            gains = [[b - a for a, b in zip(x, end, strict=True)] for x in (half, last)]
            cells = [_number(mean(half)), _number(mean(end))]
            cells += [_number(mean(gain), std(gain), "+") for gain in gains]
            figure = "joint " + name.split("/")[-1]
            rows.append((system.title, "", [figure, *cells, str(len(found))]))
    return Table(
        "Was training long enough?",
        "Figures on the held-out training videos at the evaluation nearest to half of the steps "
        "(of separate training: of its second stage) and at the end, painted with the defaults. "
        "The learning rate falls with the steps, so that half way is not where a training of half "
        "the length would end. Last gain: since the last evaluation but one.",
        [("", ["figure", "half way", "at the end", "gain", "last gain", "seeds"])],
        rows,
    )


def validation_metric(system: System, records: Sequence[Mapping]) -> str:
    """What tells how far a system's training is, with "{}" for the level.

    Label maps, but of a training without a mask head, and of pairs as classes: the default
    thresholds paint none of their scores.
    """
    trains_masks = system.has_masks and not system.weights_of
    if trains_masks and not _has_pairs(records):
        return "segmentation/{}/mIoU"
    return "detection/{}/mAP"


def _half_and_end(curve: Sequence[tuple[int, float]]) -> tuple[float, float, float]:
    """The values nearest to half of the steps, before the last one, and at their end."""
    middle = curve[-1][0] / 2
    return min(curve, key=lambda point: abs(point[0] - middle))[1], curve[-2][1], curve[-1][1]


# ---------------------------------------------------------------- other protocols


def _segmenting(results: Mapping) -> list[System]:
    return [system for system in _systems(results) if system.has_masks]


def _med_vt(results: Mapping) -> Table:
    columns = {"mIoU": "mIoU", "pixel_IoU": "pixel IoU"}
    rows = []
    for system in _segmenting(results):
        paths = [("med-vt", "segmentation", k, metric) for k in LEVELS for metric in columns]
        rows.append(_row(results, system.name, paths))
    return Table(
        "Semantic segmentation by MED-VT's protocol",
        "Per frame, without background, then averaged over frames and over videos, percent; not "
        "comparable with the official protocol. mIoU: over the classes of a frame; pixel IoU: what "
        f"MED-VT's public code computes. {_thresholds_note(results).capitalize()}",
        [(title, list(columns.values())) for title in LEVELS.values()],
        rows,
    )


def _coco(results: Mapping) -> list[Table]:
    columns = ("AP", "AP50", "AP75")
    tables = []
    for kind, systems in (("boxes", _systems(results)), ("masks", _segmenting(results))):
        rows = []
        for system in systems:
            paths = [("coco", kind, k, column) for k in LEVELS for column in columns]
            rows.append(_row(results, system.name, paths))
        tables.append(
            Table(
                f"Average precision of {kind} by COCO's protocol",
                "AP at IoU 0.50:0.95, 0.50 and 0.75, percent; not comparable with the official "
                f"protocol. No painting threshold takes part.{_pairs_note(results, systems)}",
                [(title, columns) for title in LEVELS.values()],
                rows,
            )
        )
    return tables


def _default_thresholds(results: Mapping) -> Table:
    rows = []
    if results["data"]["hold_out"]:
        for system in _segmenting(results):
            paths = [("default thresholds", of, *rest) for of, _, *rest in _OFFICIAL]
            rows.append(_row(results, system.name, paths))
    return Table(
        "Semantic segmentation with the default thresholds",
        "Official A2D protocol, percent; painting thresholds 0.7 (actor) and 0.3 (action) instead "
        "of chosen ones.",
        [(title, SEGMENTATION) for title in LEVELS.values()],
        rows,
    )


# ---------------------------------------------------------------- cost


def _cost(results: Mapping) -> Table:
    rows = []
    for system in _systems(results):
        for record in _records(results, system.name):
            training, machine = record["training"], record["machine"]
            seconds, steps = training["seconds_of_steps"], training["steps"]
            thresholds = record["thresholds"]
            chosen = MISSING
            if thresholds:
                chosen = f"{thresholds['actor']:g} / {thresholds['action']:g}"
            title = system.title
            if record["weights_of"]:
                title += f" (weights of {record['weights_of']})"
            rows.append(
                (
                    title,
                    "",
                    [
                        str(record["seed"]),
                        str(steps),
                        MISSING if seconds is None else f"{seconds / 60:.1f}",
                        ", ".join(machine["gpus"]) or _cores(machine["cores"]),
                        chosen,
                    ],
                )
            )
    return Table(
        "Training",
        "Minutes of the training steps alone, without evaluation and starting, on a machine that "
        "may have done other work beside: to compare systems, take step_seconds.json (equal_time), "
        "whose steps were timed in turns. The thresholds are those of actor and action that the "
        "figures above were painted with.",
        [("", ["seed", "steps", "minutes", "machine", "thresholds"])],
        rows,
    )


# ---------------------------------------------------------------- cells


def _cores(number: int) -> str:
    return f"{number} CPU core{'s' if number > 1 else ''}"


def _systems(results: Mapping) -> list[System]:
    """The systems that have records, in the order of the tables."""
    known = all_systems(LabelSpace.from_dict(results["label_space"]))
    return [system for name, system in known.items() if name in results["systems"]]


def _records(results: Mapping, name: str) -> list[dict]:
    return results["systems"].get(name, {}).get("records", [])


def _has_pairs(records: Sequence[Mapping]) -> bool:
    """Whether the classes of the region heads are pairs."""
    return any(record["config"].get("MODEL.CLASSES") == "pairs" for record in records)


def _titles(results: Mapping) -> dict[str, str]:
    known = all_systems(LabelSpace.from_dict(results["label_space"]))
    return {name: system.title for name, system in known.items()}


def _seeds(results: Mapping, name: str) -> str:
    """How many a system has, if more than one, to be put after its name."""
    seeds = results["systems"].get(name, {}).get("seeds", ())
    return f" ({len(seeds)} seeds)" if len(seeds) > 1 else ""


def _row(
    results: Mapping, name: str, paths: Sequence[tuple[str, ...]]
) -> tuple[str, str, list[str]]:
    title = _titles(results)[name] + _seeds(results, name)
    return title, "", _measured(results, name, paths)


def _measured(results: Mapping, name: str, paths: Sequence[tuple[str, ...]]) -> list[str]:
    figures = results["systems"].get(name, {}).get("figures", {})
    return [
        _number(lookup(figures.get("mean"), *path), lookup(figures.get("std"), *path))
        for path in paths
    ]


def _number(
    middle: float | None, deviation: float | None = None, sign: str = "", digits: int = 1
) -> str:
    if middle is None:
        return MISSING
    text = f"{middle:{sign}.{digits}f}"
    return text if deviation is None else f"{text} ± {deviation:.{digits}f}"
