"""Starting a main function in one process or many: Detectron2's launch, or torchrun's processes."""

import argparse
import contextlib
import os
import re
from collections.abc import Callable

import torch
from detectron2.engine import launch
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from a2d_d2.engine.stop import STOPPED, Stopped, passing_on
from a2d_d2.utils.cli import say_lost_lines_once
from a2d_d2.utils.parallel import end_with_parent

# The last line of a traceback that a user's mistake leaves in a process.
USER_ERROR = re.compile(
    r"(?:[\w.]*\.)?"
    r"(?:ValueError|ReleaseError|VideoError|OSError|PermissionError|FileNotFoundError): (.*)"
)
# What torch says when a port is taken (2.4 by a RuntimeError), or not all machines come in time.
_NOT_JOINED = re.compile(
    r"^(?:torch\.distributed\.Dist(?:Network|Store)Error|RuntimeError(?=: The server socket))"
    r": (.*)",
    re.MULTILINE,
)


def _in_process(main: Callable, args: argparse.Namespace) -> None:
    # torch sends SIGINT when the parent dies, which background jobs of a shell ignore.
    end_with_parent()
    say_lost_lines_once()
    try:
        main(args)
    except SystemExit:
        # A thread of torch 2.4's gloo may abort a process that ends with the group.
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        raise


def launch_main(main: Callable, args: argparse.Namespace) -> None:
    """Runs ``main(args)`` in every process of the job.

    Under torchrun this process joins the group that it describes. Otherwise Detectron2's launch
    starts ``--num-gpus`` processes on this machine, on the CPU (gloo) where there is no GPU.

    Raises:
        ValueError: a user's mistake, also when one of several processes found it, and when the
            machines could not join.
        Stopped: SIGTERM came, which every process gets.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        for option in ("num_gpus", "num_machines"):
            if (value := getattr(args, option)) < 1:
                name = option.replace("_", "-")
                raise ValueError(f"--{name} is {value}; it must be at least 1")
        if not 0 <= args.machine_rank < args.num_machines:
            raise ValueError(
                f"--machine-rank is {args.machine_rank}; with --num-machines {args.num_machines} "
                f"it must be from 0 to {args.num_machines - 1}"
            )
        if args.num_machines > 1 and not re.match(r"tcp://.+:\d+$|file://", args.dist_url):
            raise ValueError(
                f"--dist-url is {args.dist_url}; several machines need --dist-url tcp://HOST:PORT, "
                "HOST being machine 0"
            )
        is_one = args.num_gpus * args.num_machines == 1
        with contextlib.nullcontext() if is_one else passing_on() as told:
            try:
                launch(
                    _in_process,
                    args.num_gpus,
                    num_machines=args.num_machines,
                    machine_rank=args.machine_rank,
                    # Detectron2's default is one port a user: two trainings would meet there.
                    dist_url=args.dist_url if args.num_machines > 1 else "auto",
                    args=(main, args),
                )
            except ProcessRaisedException as error:
                last = str(error).strip().splitlines()[-1]
                if match := USER_ERROR.match(last):
                    raise ValueError(match[1]) from error
                if match := _NOT_JOINED.search(str(error)):
                    raise ValueError(
                        f"the machines could not join at --dist-url {args.dist_url}: {match[1]}"
                    ) from error
                raise
            except ProcessExitedException as error:
                if error.exit_code == STOPPED or (told.is_set() and error.exit_code < 0):
                    raise Stopped from error  # also one that had not begun to listen
                if error.exit_code < 0:
                    raise ValueError(
                        f"process {error.error_index} was killed ({error.signal_name}; out of "
                        "memory?); a training goes on with --resume"
                    ) from error
                raise
        return
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if has_gpu else "gloo")
    try:
        comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
        main(args)
    finally:
        torch.distributed.destroy_process_group()
