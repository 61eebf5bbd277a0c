#!/usr/bin/env python3
"""Measure what the project costs on this machine, with random weights. Examples:

    python tools/benchmark.py all --json all.json
    python tools/benchmark.py all --config-file configs/a2d_R101_FPN.yaml --height 320 --width 568
    python tools/benchmark.py train --profile profile --json train.json
    python tools/benchmark.py infer --config-file configs/a2d_R101_FPN.yaml --height 320 --width 568
    python tools/benchmark.py stream --config-file configs/a2d_R50_FPN.yaml --frames 16 KEY VALUE
    python tools/benchmark.py memory --short 100 --long 5000

flow: preparing a video's windows. data: loading a training clip from the cache. train, infer: a
training step, and inference on an annotated frame, beside their parts. eval: the figures of
segmentation and detection. index: opening a release of A2D's size. import: what the package adds.
Each sets its figure against a limit and a goal; all runs them one after the other and prints one
table. A --config-file gives flow the windows, eval and index the label space; import reads none.

stream: milliseconds a frame of streaming, of its parts, of the naive way (the whole window of every
frame) and of Mask R-CNN on single frames. memory: peak memory of a short and of a long video. Both
say whether their goals are met. scale: how time and memory grow with the size of the work. plan:
the operations of a model, and how long its training takes on some GPUs (docs/scaling.md). options:
what switches and ways that were tried cost and gain, without and with each in turns.

Timings want a machine that does nothing else.
"""

import argparse
import shlex
import sys

import torch

from a2d_d2.benchmark.common import machine_line, set_threads
from a2d_d2.benchmark.data import data_lines, measure_data
from a2d_d2.benchmark.evaluation import eval_lines, measure_eval
from a2d_d2.benchmark.flow import flow_lines, measure_flow
from a2d_d2.benchmark.imports import import_lines, measure_import
from a2d_d2.benchmark.index import index_lines, measure_index
from a2d_d2.benchmark.infer import infer_lines, measure_infer
from a2d_d2.benchmark.memory import measure_memory, memory_lines
from a2d_d2.benchmark.options import measure_options, options_lines
from a2d_d2.benchmark.plan import measure_plan, plan_lines
from a2d_d2.benchmark.rows import row_lines
from a2d_d2.benchmark.scale import measure_scale, scale_lines
from a2d_d2.benchmark.stream import measure_stream, stream_lines
from a2d_d2.benchmark.train import measure_train, train_lines
from a2d_d2.config import setup_cfg
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.cli import run_tool
from a2d_d2.utils.files import write_json
from a2d_d2.utils.repository import repository_path

# The stages of "all", in the order of its table, with the options of "all --quick".
STAGES = {
    "flow": ("--height", "64", "--width", "80", "--frames", "12", "--videos", "1", "--repeats", "1")
    + ("--tool-videos", "1", "--workers", "1"),
    "data": ("--height", "64", "--width", "64", "--full-height", "64", "--full-width", "80")
    + ("--videos", "1", "--repeats", "1"),
    "train": ("--height", "64", "--width", "80", "--repeats", "1", "--steps", "1"),
    "infer": ("--height", "64", "--width", "80", "--repeats", "1"),
    "eval": ("--label-maps", "2", "--frames", "5", "--repeats", "1"),
    "index": ("--shrink", "500", "--repeats", "1"),
    "import": ("--repeats", "1"),
}
# Of the options of "all", those that a stage has as well.
SHARED = {
    **dict.fromkeys(("flow", "data", "eval", "index"), ("config_file",)),
    **dict.fromkeys(("train", "infer"), ("config_file", "height", "width", "profile")),
    "import": (),
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
    _add_counts(flow, frames=60, videos=2, tool_videos=96, repeats=3)
    flow.add_argument("--workers", type=int, metavar="N", help="processes; default: every core")
    _add_labels(flow)

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
    _add_labels(evaluation)

    index = _add(commands, "index", _index, "open a release of A2D's size")
    _add_counts(index, shrink=1, repeats=5)
    _add_labels(index)

    imports = _add(commands, "import", _import, "import the package in new interpreters")
    _add_counts(imports, repeats=5)
    _add_json(imports)

    train = _add(commands, "train", _train, "time a training step and its parts")
    _add_network(train)
    train.add_argument(
        "--steps", type=int, default=20, metavar="N", help="fed by the loader (%(default)s)"
    )
    _add_common(train)

    infer = _add(commands, "infer", _infer, "time inference on an annotated frame and its parts")
    _add_network(infer)
    _add_common(infer)

    scale = _add(commands, "scale", _scale, "how time and memory grow with the size of the work")
    _add_config(scale)
    scale.add_argument(
        "--repeats", type=int, default=3, metavar="R", help="figures are the least (%(default)s)"
    )
    scale.add_argument(
        "--points", type=int, default=4, metavar="N", help="sizes of each kind (%(default)s)"
    )
    scale.add_argument("--plot", metavar="PNG", help="draw the results into this file")
    _add_common(scale)

    plan = _add(commands, "plan", _plan, "the operations of a model, and its training on paper")
    plan.add_argument(
        "--config-file", metavar="C", help="of the model; else configs/a2d_R101_FPN.yaml, batch 16"
    )
    _add_size(plan, 320, 568)
    plan.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64], metavar="N")
    for name, value, text in (
        ("teraflops", 50.0, "that a GPU reaches, 10^12 operations a second"),
        ("gigabytes", 10.0, "that a GPU sends to others in a second"),
        ("memory-gib", 24.0, "of a GPU"),
        ("clip-seconds", None, "measured, of a clip in a training step on one GPU"),
        ("load-seconds", None, "measured, of one core for a clip"),
        ("clip-kib", None, "measured, of a clip's files in the cache"),
    ):
        default = "not known" if value is None else "%(default)g"
        plan.add_argument(f"--{name}", type=float, default=value, help=f"{text} ({default})")
    plan.add_argument(
        "--measured", metavar="JSON", help="of data or all: gives --load-seconds and --clip-kib"
    )
    plan.add_argument("--step", metavar="JSON", help="of train on one GPU: gives --clip-seconds")
    plan.add_argument("--infer", metavar="JSON", help="of infer on one GPU: time of evaluating")
    _add_common(plan)

    options = _add(commands, "options", _options, "switches and what was tried, without and with")
    _add_config(options)
    _add_size(options, 96, 128)
    _add_size(options, 320, 568, "full-")
    _add_counts(options, repeats=7)
    _add_common(options)

    everything = _add(commands, "all", None, "run " + ", ".join(STAGES))
    everything.add_argument(
        "--quick", action="store_true", help="as small as can be: to see that all works"
    )
    everything.add_argument("--config-file", metavar="C", help="of the model; else each stage's")
    for name in ("height", "width"):
        everything.add_argument(
            f"--{name}", type=int, help="of the videos of train and infer; else their own"
        )
    _add_profile(everything)
    _add_json(everything)
    _add_options(everything)

    args = parser.parse_args()
    if args.measure is None:
        stages = {name: parser.parse_args(_stage_command(name, args)) for name in STAGES}
        args.measure = lambda _: _all(stages)
    result, lines = args.measure(args)
    print("\n".join(lines))
    if args.json:
        command = shlex.join(["python", "tools/benchmark.py", *sys.argv[1:]])
        write_json(args.json, {"command": command} | result)


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
    of_config = setup_cfg(args.config_file, args.opts).INPUT
    if of_config.FLOW_METHOD != "dis":
        raise ValueError(
            f"INPUT.FLOW_METHOD is {of_config.FLOW_METHOD}; only preparing with dis is measured: "
            "add INPUT.FLOW_METHOD dis"
        )
    result = measure_flow(
        height=args.height,
        width=args.width,
        frames=args.frames,
        videos=args.videos,
        tool_videos=args.tool_videos,
        repeats=args.repeats,
        length=of_config.CLIP.LENGTH,
        stride=of_config.CLIP.STRIDE,
        workers=args.workers,
    )
    result = {"config_file": args.config_file, "options": args.opts} | result
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
        space=_label_space(args),
    )
    result = {"config_file": args.config_file, "options": args.opts} | result
    return result, eval_lines(result)


def _index(args: argparse.Namespace) -> tuple[dict, list[str]]:
    result = measure_index(shrink=args.shrink, repeats=args.repeats, space=_label_space(args))
    result = {"config_file": args.config_file, "options": args.opts} | result
    return result, index_lines(result)


def _import(args: argparse.Namespace) -> tuple[dict, list[str]]:
    result = measure_import(repeats=args.repeats)
    return result, import_lines(result)


def _train(args: argparse.Namespace) -> tuple[dict, list[str]]:
    set_threads(args.threads)
    path, options = _model(args, "configs/synthetic/R18_FPN.yaml")
    result = measure_train(
        path,
        options,
        height=args.height,
        width=args.width,
        repeats=args.repeats,
        steps=args.steps,
        profile=args.profile,
    )
    result = {"config_file": path, "options": options} | result
    return result, train_lines(result)


def _infer(args: argparse.Namespace) -> tuple[dict, list[str]]:
    set_threads(args.threads)
    path, options = _model(args, "configs/synthetic/R18_FPN.yaml")
    result = measure_infer(
        path,
        options,
        height=args.height,
        width=args.width,
        repeats=args.repeats,
        profile=args.profile,
    )
    result = {"config_file": path, "options": options} | result
    return result, infer_lines(result)


def _scale(args: argparse.Namespace) -> tuple[dict, list[str]]:
    path, options = _model(args, "configs/synthetic/R18_FPN.yaml")
    result = measure_scale(
        path,
        options,
        repeats=args.repeats,
        points=args.points,
        threads=args.threads,
        plot=args.plot,
    )
    result = {"config_file": path, "options": options} | result
    return result, scale_lines(result)


def _plan(args: argparse.Namespace) -> tuple[dict, list[str]]:
    # Twice the batch for half the steps.
    batch = ["SOLVER.IMS_PER_BATCH", "16", "SOLVER.MAX_ITER", "18000"]
    path, options = _model(args, "configs/a2d_R101_FPN.yaml", *batch)
    result = measure_plan(
        path,
        options,
        height=args.height,
        width=args.width,
        gpus=args.gpus,
        teraflops=args.teraflops,
        gigabytes=args.gigabytes,
        memory_gib=args.memory_gib,
        clip_seconds=args.clip_seconds,
        load_seconds=args.load_seconds,
        clip_kib=args.clip_kib,
        measured=args.measured,
        step=args.step,
        infer=args.infer,
    )
    files = {"measured": args.measured, "step": args.step, "infer": args.infer}
    result = {"config_file": path, "options": options} | files | result
    return result, plan_lines(result)


def _stage_command(name: str, args: argparse.Namespace) -> list[str]:
    """The arguments of a stage of "all" that was called with ``args``."""
    command = [name, *(STAGES[name] if args.quick else ())]
    for option in SHARED[name]:
        value = getattr(args, option)
        command += [] if value is None else [f"--{option.replace('_', '-')}", str(value)]
    return [*command, *(args.opts if "config_file" in SHARED[name] else ())]


def _options(args: argparse.Namespace) -> tuple[dict, list[str]]:
    path, options = _model(args, "configs/synthetic/R18_FPN.yaml")
    result = measure_options(
        path,
        options,
        height=args.height,
        width=args.width,
        full_height=args.full_height,
        full_width=args.full_width,
        repeats=args.repeats,
        threads=args.threads,
    )
    result = {"config_file": path, "options": options} | result
    return result, options_lines(result)


def _all(stages: dict[str, argparse.Namespace]) -> tuple[dict, list[str]]:
    """Each stage with its arguments; the rows of all in one table."""
    results, rows = {}, []
    for name, args in stages.items():
        print(f"{name}:", file=sys.stderr)
        results[name], lines = args.measure(args)
        print("\n".join(lines), file=sys.stderr)  # kept, should a later stage fail
        rows += results[name]["rows"]
    lines = [machine_line(results["flow"]["machine"]), *row_lines(rows)]
    return {"stages": results, "rows": rows}, lines


def _model(args: argparse.Namespace, path: str, *options: str) -> tuple[str, list[str]]:
    """The configuration file and its options: those asked for, or else the ones given here."""
    if args.config_file:
        return args.config_file, args.opts
    return repository_path(path), [*options, *args.opts]


def _label_space(args: argparse.Namespace) -> LabelSpace:
    return LabelSpace.load(setup_cfg(args.config_file, args.opts).DATASETS.LABEL_SPACE)


def _add(commands, name: str, measure, description: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=description, description=description)
    parser.set_defaults(measure=measure)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config-file", metavar="C", help="of the model; else configs/synthetic/R18_FPN.yaml"
    )


def _add_network(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    _add_size(parser, 128, 160)
    parser.add_argument(
        "--repeats", type=int, default=15, metavar="R", help="figures are medians (%(default)s)"
    )
    _add_profile(parser)


def _add_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile", metavar="DIR", help="folder for a profile: a table and a trace (default: none)"
    )


def _add_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config-file", metavar="C", help="of the model (default: A2D's values)")
    _add_json(parser)
    _add_options(parser)


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
        "tool_videos": "of tools/prepare_clips.py",
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
