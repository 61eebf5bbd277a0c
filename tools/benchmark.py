#!/usr/bin/env python3
"""Measure what the project costs on this machine, with random weights. Examples:

    python tools/benchmark.py stream --json stream.json
    python tools/benchmark.py stream --config-file configs/a2d_R50_FPN.yaml --frames 16 KEY VALUE
    python tools/benchmark.py memory --short 100 --long 5000
    python tools/benchmark.py all --json all.json

data: loading a training clip from the cache. flow: preparing a video's windows. eval: the figures
of segmentation and detection. index: opening a release of A2D's size. import: what the package
adds. Each sets its figure against a limit and a goal; all runs them one after the other and prints
one table.

stream: milliseconds a frame of streaming, of its parts, of the naive way (the whole window of every
frame) and of Mask R-CNN on single frames. memory: peak memory of a short and of a long video. Both
say whether their goals are met.

Timings want a machine that does nothing else.
"""

import argparse
import sys

import torch

from a2d_d2.benchmark.common import machine_line, set_threads
from a2d_d2.benchmark.data import data_lines, measure_data
from a2d_d2.benchmark.evaluation import eval_lines, measure_eval
from a2d_d2.benchmark.flow import flow_lines, measure_flow
from a2d_d2.benchmark.imports import import_lines, measure_import
from a2d_d2.benchmark.index import index_lines, measure_index
from a2d_d2.benchmark.memory import measure_memory, memory_lines
from a2d_d2.benchmark.rows import row_lines
from a2d_d2.benchmark.stream import measure_stream, stream_lines
from a2d_d2.config import setup_cfg
from a2d_d2.utils.cli import run_tool
from a2d_d2.utils.files import write_json
from a2d_d2.utils.repository import repository_path

# The stages of "all", in the order of its table, with the options of "all --quick".
STAGES = {
    "flow": ("--height", "64", "--width", "80", "--frames", "12", "--videos", "1", "--repeats", "1")
    + ("--workers", "1"),
    "data": ("--height", "64", "--width", "64", "--full-height", "64", "--full-width", "80")
    + ("--videos", "1", "--repeats", "1"),
    "eval": ("--label-maps", "2", "--frames", "5", "--repeats", "1"),
    "index": ("--shrink", "500", "--repeats", "1"),
    "import": ("--repeats", "1"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    stream = _add(commands, "stream", _stream, "time a frame of streaming and of other ways")
    stream.add_argument(
        "--config-file",
        metavar="C",
        help="of the model; else configs/a2d_R101_FPN.yaml with MODEL.TEMPORAL.NUM_LAYERS 2",
    )
    _add_size(stream, 320, 568)
    stream.add_argument(
        "--frames", type=int, default=8, metavar="N", help="in each repeat (%(default)s)"
    )
    stream.add_argument(
        "--repeats", type=int, default=3, metavar="R", help="figures are medians (%(default)s)"
    )
    stream.add_argument(
        "--batch-size", type=int, default=4, metavar="B", help="frames at once (%(default)s)"
    )
    _add_common(stream)

    memory = _add(commands, "memory", _memory, "peak memory of a short and of a long video")
    memory.add_argument(
        "--config-file",
        metavar="C",
        help="of the model; else configs/synthetic/R18_FPN.yaml with TEST.DETECTIONS_PER_IMAGE 5",
    )
    _add_size(memory, 128, 160)
    memory.add_argument(
        "--short", type=int, default=100, metavar="N", help="frames of one (%(default)s)"
    )
    memory.add_argument(
        "--long", type=int, default=5000, metavar="N", help="frames of the other (%(default)s)"
    )
    _add_common(memory)

    flow = _add(commands, "flow", _flow, "prepare the windows of videos")
    _add_size(flow, 320, 568)
    _add_counts(flow, frames=60, videos=2, repeats=3)
    flow.add_argument("--workers", type=int, metavar="N", help="processes; default: every core")
    _add_json(flow)

    data = _add(commands, "data", _data, "load training clips from the cache")
    data.add_argument(
        "--config-file",
        metavar="C",
        help="of the model; else configs/a2d_R101_FPN.yaml with MODEL.TEMPORAL.NUM_LAYERS 2",
    )
    _add_size(data, 256, 256)
    _add_size(data, 320, 568, "full-")
    _add_counts(data, videos=3, repeats=7)
    _add_json(data)
    _add_options(data)

    evaluation = _add(commands, "eval", _eval, "score random frames")
    _add_size(evaluation, 320, 568)
    _add_counts(evaluation, label_maps=100, frames=2365, detections=100, repeats=3)
    _add_json(evaluation)

    index = _add(commands, "index", _index, "open a release of A2D's size")
    _add_counts(index, shrink=1, repeats=5)
    _add_json(index)

    imports = _add(commands, "import", _import, "import the package in new interpreters")
    _add_counts(imports, repeats=5)
    _add_json(imports)

    everything = _add(commands, "all", None, "run " + ", ".join(STAGES) + " with their defaults")
    everything.add_argument(
        "--quick", action="store_true", help="as small as can be: to see that all works"
    )
    _add_json(everything)

    args = parser.parse_args()
    if args.measure is None:
        stages = {
            name: parser.parse_args([name, *(quick if args.quick else ())])
            for name, quick in STAGES.items()
        }
        args.measure = lambda _: _all(stages)
    result, lines = args.measure(args)
    print("\n".join(lines))
    if args.json:
        write_json(args.json, result)


def _stream(args: argparse.Namespace) -> tuple[dict, list[str]]:
    set_threads(args.threads)
    path, options = _model(args, "configs/a2d_R101_FPN.yaml", "MODEL.TEMPORAL.NUM_LAYERS", "2")
    result = measure_stream(
        setup_cfg(path, options),
        height=args.height,
        width=args.width,
        frames=args.frames,
        repeats=args.repeats,
        batch_size=args.batch_size,
    )
    result = {"config_file": path, "options": options} | result
    return result, stream_lines(result)


def _memory(args: argparse.Namespace) -> tuple[dict, list[str]]:
    set_threads(args.threads)
    # A hundred random detections on every frame would take longer than the network.
    path, options = _model(args, "configs/synthetic/R18_FPN.yaml", "TEST.DETECTIONS_PER_IMAGE", "5")
    result = measure_memory(
        path,
        options,
        height=args.height,
        width=args.width,
        short=args.short,
        long=args.long,
        threads=args.threads,
    )
    result = {"config_file": path, "options": options} | result
    return result, memory_lines(result)


def _flow(args: argparse.Namespace) -> tuple[dict, list[str]]:
    result = measure_flow(
        height=args.height,
        width=args.width,
        frames=args.frames,
        videos=args.videos,
        repeats=args.repeats,
        workers=args.workers,
    )
    return result, flow_lines(result)


def _data(args: argparse.Namespace) -> tuple[dict, list[str]]:
    path, options = _model(args, "configs/a2d_R101_FPN.yaml", "MODEL.TEMPORAL.NUM_LAYERS", "2")
    result = measure_data(
        path,
        options,
        height=args.height,
        width=args.width,
        full_height=args.full_height,
        full_width=args.full_width,
        videos=args.videos,
        repeats=args.repeats,
    )
    result = {"config_file": path, "options": options} | result
    return result, data_lines(result)


def _eval(args: argparse.Namespace) -> tuple[dict, list[str]]:
    result = measure_eval(
        height=args.height,
        width=args.width,
        label_maps=args.label_maps,
        frames=args.frames,
        detections=args.detections,
        repeats=args.repeats,
    )
    return result, eval_lines(result)


def _index(args: argparse.Namespace) -> tuple[dict, list[str]]:
    result = measure_index(shrink=args.shrink, repeats=args.repeats)
    return result, index_lines(result)


def _import(args: argparse.Namespace) -> tuple[dict, list[str]]:
    result = measure_import(repeats=args.repeats)
    return result, import_lines(result)


def _all(stages: dict[str, argparse.Namespace]) -> tuple[dict, list[str]]:
    """Each stage with its arguments; the rows of all in one table."""
    results = {}
    for name, args in stages.items():
        print(f"{name}:", file=sys.stderr)
        results[name], _ = args.measure(args)
    rows = [row for result in results.values() for row in result["rows"]]
    lines = [machine_line(results["flow"]["machine"]), *row_lines(rows)]
    return {"stages": results, "rows": rows}, lines


def _model(args: argparse.Namespace, path: str, *options: str) -> tuple[str, list[str]]:
    """The configuration file and its options: those asked for, or else the ones given here."""
    if args.config_file:
        return args.config_file, args.opts
    return repository_path(path), [*options, *args.opts]


def _add(commands, name: str, measure, description: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=description, description=description)
    parser.set_defaults(measure=measure)
    return parser


def _add_size(parser: argparse.ArgumentParser, height: int, width: int, prefix: str = "") -> None:
    for name, pixels in (("height", height), ("width", width)):
        parser.add_argument(
            f"--{prefix}{name}",
            type=int,
            default=pixels,
            help="of the video, in pixels (%(default)s)",
        )


def _add_counts(parser: argparse.ArgumentParser, **defaults: int) -> None:
    meanings = {
        "frames": "number of frames",
        "videos": "number of videos",
        "shrink": "one of N videos of A2D's number",
        "repeats": "figures are medians",
        "label_maps": "frames that segmentation is measured on",
        "detections": "on each frame",
    }
    for name, default in defaults.items():
        parser.add_argument(
            "--" + name.replace("_", "-"),
            type=int,
            default=default,
            metavar="N",
            help=f"{meanings[name]} (%(default)s)",
        )


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="of the network (%(default)s)"
    )
    _add_json(parser)
    _add_options(parser)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="OUT", help="write the figures to this file")


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="of the config")


if __name__ == "__main__":
    run_tool(main)
