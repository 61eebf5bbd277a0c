"""Blocks of README.md and of docs/ that are written from results files, never by hand."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from a2d_d2.benchmark.common import machine_line
from a2d_d2.benchmark.memory import LARGEST_CHANGE, LENGTHS, PATHS
from a2d_d2.benchmark.options import options_lines
from a2d_d2.benchmark.plan import plan_lines
from a2d_d2.benchmark.rows import row_lines
from a2d_d2.benchmark.scale import scale_lines
from a2d_d2.engine.demo import SEED, full_demo_summary, settings_digest
from a2d_d2.evaluation.tables import markdown_table
from a2d_d2.experiments.tables import longer_block, readme_block
from a2d_d2.utils.files import write_json
from a2d_d2.utils.reliability import coverage_figures, reliability_block


def demo_block(summary: dict) -> str:
    """The scores of ``results/demo/summary.json`` as a table, and its times."""
    minutes, total = summary["training_seconds"] / 60, summary["total_seconds"] / 60
    return (
        f"{markdown_table(summary)}\n\n"
        f"Training on {summary['train_videos']} videos took {minutes:.1f} minutes on "
        f"{summary['cores']} CPU cores, the whole demo after set-up {total:.1f}. Written by "
        "`make demo` and `python tools/update_readme.py --demo demo` (`results/demo/summary.json`)."
    )


def step_block(result: dict) -> str:
    """The figures of ``results/r101_step.json`` in words."""
    frames, weights = result["frames"], result["start_weights"]
    ratio = result["inference_seconds"] / result["mask_rcnn_inference_seconds"]
    loaded = " and ".join(
        f"{w['loaded']} of {w['total']} tensors of the {name} stream" for name, w in weights.items()
    )
    threads = result["machine"]["threads"]
    return (
        f"One step of the full ResNet-101 model on one clip of {frames['height']}x"
        f"{frames['width']} pixels ({frames['computed']} frames computed for T = 5, "
        f"{result['parameters_millions']:.0f} million parameters), on {threads} CPU threads: "
        f"training {result['training_seconds']:.1f} s and "
        f"{result['training_peak_gib']:.1f} GiB, inference {result['inference_seconds']:.1f} s and "
        f"{result['inference_peak_gib']:.1f} GiB; inference takes {ratio:.1f} times as long as "
        "Mask R-CNN on one frame with one such backbone. CPU times are noisy; those of a GPU are "
        f"in docs/scaling.md. Files in the model zoo's formats fill {loaded}; the rest is what the "
        "paper starts at random (temporal convolutions, action head) and the flow stream's FPN, "
        "which ImageNet has no weights for. Written by `python tools/measure_step.py "
        "--stand-in-weights --json "
        "results/r101_step.json`."
    )


def index_block(result: dict) -> str:
    """The figures of ``results/start.json`` in words."""
    return (
        f"A release of A2D's size ({result['annotated_frames']} annotated frames of "
        f"{result['videos']} videos) is opened in {result['first_start_seconds']:.0f} s the first "
        f"time, when its index is built on {result['cores']} cores, and in "
        f"{result['second_start_seconds']:.1f} s from then on (index: {result['index_mib']:.0f} "
        "MiB). Written by `python tools/measure_start.py --json results/start.json`."
    )


def video_block(results: dict) -> str:
    """What streaming costs, from ``stream*.json`` and ``memory.json`` of ``results/benchmarks``."""
    names = [name for name in sorted(results) if name.startswith("stream")]
    streams = [results[name] for name in names]
    lines = []
    commands = [_command(stream) for stream in streams]
    if streams:
        frames, machine = streams[0]["frames"], streams[0]["machine"]
        titles = {
            "streaming_to_parts": "streaming / sum of its parts, each once a frame",
            "naive_to_streaming": "whole window for each frame / streaming",
            "streaming_to_mask_rcnn": "streaming / Mask R-CNN on single frames",
        }
        heads = [f"{stream['frames']['detections']} detections a frame" for stream in streams]
        rows = [["ratio of times", *heads, "goal"], ["---", *["---:"] * len(streams), "---"]]
        for name, title in titles.items():
            figures = [stream["ratios"][name] for stream in streams]
            goal = f"at most {figures[0]['at_most']:g}" if "at_most" in figures[0] else ""
            goal = goal or f"(limit: near {figures[0]['limit']})"
            rows.append([title, *(f"{figure['median']:.2f}" for figure in figures), goal])
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        lines += [
            "",
            f"ResNet-{streams[0]['model']['depth']}, T = {streams[0]['model']['window']}, two "
            f"temporal layers, {frames['height']}x{frames['width']} pixels, random weights, "
            f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''} of a CPU. "
            "Detection costs the same in every way and holds the second ratio below its limit. "
            "Streaming was not measured on a GPU.",
        ]
    if "check_streaming" in results:
        check = results["check_streaming"]
        overall = check["overall"]
        videos = ", ".join(Path(path).name for path in check["videos"])
        lines += [
            "",
            f"Streaming against every frame's clip on its own, {overall['frames']} frames and "
            f"{overall['instances']} instances of {videos}; largest difference "
            f"of scores {overall['scores']:.1e}, of boxes {overall['boxes']:.1e} of the longer side"
            f" ({overall['pixels']:.1e} pixels), of masks {overall['masks']:.1e} of the frame "
            f"(goal: at most {check['tolerance']:g}).",
            "",
        ]
        commands.append(_command(check))
    if "memory" in results:
        memory = results["memory"]
        for path, title in PATHS.items():
            short, long = (memory["peaks"][path][name] for name in LENGTHS)
            figure = memory["ratios"][path]["cpu"]
            lines.append(
                f"Peak memory of {title}: {short['cpu_mib']:.0f} MiB for {short['frames']} frames, "
                f"{long['cpu_mib']:.0f} MiB for {long['frames']}, ratio {figure['ratio']:.3f} "
                f"(goal: within {LARGEST_CHANGE:.0%}; {'met' if figure['met'] else 'missed'})."
            )
        size = memory["frames"]
        lines.append(
            f"Memory is that of `{memory['config_file']}` with random weights, {size['height']}x"
            f"{size['width']} pixels and at most {size['most_detections']} detections a frame."
        )
        commands.append(_command(memory))
    if commands:
        lines.append(f"Written by {', '.join(commands)}.")
    return "\n".join(lines)


def stages_block(result: dict) -> str:
    """The table of ``benchmark.py all``."""
    machine = result["stages"]["flow"]["machine"]
    return _paragraphs(
        [machine_line(machine)],
        row_lines(result["rows"]),
        [f"Written by {_command(result)}."],
    )


def network_block(results: dict) -> str:
    """The tables of ``train_R101*.json`` and ``infer_R101*.json``, of ``results/benchmarks``."""
    parts = []
    for command in ("train", "infer"):
        for name in (f"{command}_R101", f"{command}_R101_gpu"):
            if name in results:
                result = results[name]
                parts += [
                    [machine_line(result["machine"])],
                    row_lines(result["rows"]),
                    [f"Written by {_command(result)}."],
                ]
    return _paragraphs(*parts)


def growth_block(result: dict) -> str:
    """The tables of ``results/benchmarks/scale.json``."""
    return _paragraphs(scale_lines(result), [f"Written by {_command(result)}."])


def plan_block(result: dict) -> str:
    """The figures of ``results/benchmarks/plan.json`` as the command prints them."""
    return _paragraphs(["```", *plan_lines(result), "```"], [f"Written by {_command(result)}."])


def _command(result: Mapping) -> str:
    """The command that wrote a result, in code."""
    return f"`{result['command']}`"


def options_block(result: dict) -> str:
    """The table of ``results/benchmarks/options.json``."""
    return _paragraphs(options_lines(result), [f"Written by {_command(result)}."])


def _paragraphs(*parts: list[str]) -> str:
    return "\n\n".join("\n".join(lines) for lines in parts)


BLOCKS = {
    "demo": ("results/demo/summary.json", demo_block),
    "r101": ("results/r101_step.json", step_block),
    "index": ("results/start.json", index_block),
    "experiments": ("results/synthetic/results.json", readme_block),
    "longer": ("results/synthetic_long/results.json", longer_block),
    # Folders: of the files that are there, all of which may be missing.
    "reliability": ("results/reliability", reliability_block),
    "video": ("results/benchmarks", video_block),
}
# The blocks of each document: name to the results and what writes it.
DOCUMENTS = {
    "README.md": BLOCKS,
    "docs/benchmarks.md": {
        "stages": ("results/benchmarks/cpu.json", stages_block),
        "options": ("results/benchmarks/options.json", options_block),
    },
    "docs/scaling.md": {
        "network": ("results/benchmarks", network_block),
        "growth": ("results/benchmarks/scale.json", growth_block),
        "plan": ("results/benchmarks/plan.json", plan_block),
    },
}
# Left out while neither their results nor their markers are there.
OPTIONAL = {"experiments", "longer"}


def take_over_demo(demo: Path, root: Path) -> None:
    """Copies the figures of a full demo that was run in one go into ``root/results``.

    They are kept with a digest of what they were made with, by which a test sees that they are out
    of date.

    Raises:
        ValueError: ``demo`` is not the folder of one, or it was made with other settings.
    """
    figures = full_demo_summary(demo)
    write_json(
        root / "results" / "demo" / "summary.json",
        {"seed": SEED, "settings_sha256": settings_digest(), **figures},
    )


def take_over_coverage(report: Path, root: Path) -> None:
    """Keeps the figures of ``make coverage`` in ``root/results``.

    Raises:
        ValueError: ``report`` is not the file that it writes.
    """
    try:
        figures = coverage_figures(json.loads(report.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{report}: {error}") from error
    write_json(root / "results" / "reliability" / "coverage.json", figures)


def _read_results(path: Path):
    """A results file, or those of a folder by their names without suffix."""
    if path.suffix:
        return json.loads(path.read_text(encoding="utf-8"))
    return {file.stem: _read_results(file) for file in sorted(path.glob("*.json"))}


def update_document(root: Path, document: str) -> str:
    """The text of a document with every block written anew from its results file.

    Args:
        root: of the repository.
        document: of DOCUMENTS.

    Raises:
        ValueError: a block's markers or its results file are missing.
    """
    text = (root / document).read_text(encoding="utf-8")
    for name, (source, write) in DOCUMENTS[document].items():
        path = root / source
        begin, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
        if name in OPTIONAL and not path.exists() and begin not in text:
            continue
        if path.suffix and not path.exists():
            raise ValueError(f"{path} does not exist; {document} names the command that writes it")
        block = write(_read_results(path))
        pattern = re.escape(begin) + ".*?" + re.escape(end)
        if not re.search(pattern, text, flags=re.DOTALL):
            raise ValueError(f"{document} has no block {begin} ... {end}")
        new = f"{begin}\n{block}\n{end}"
        text = re.sub(pattern, lambda _, new=new: new, text, flags=re.DOTALL)
    return text
