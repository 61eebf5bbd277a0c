"""Preparing the clips of a release as a command, on one machine or several."""

import argparse
import datetime
import os
import sys

from detectron2.utils import comm
from torch import distributed
from torch.multiprocessing import ProcessExitedException

from a2d_d2.config import setup_cfg
from a2d_d2.data.clip_cache import Preparation, prepare_clips
from a2d_d2.engine.launch import launch_main
from a2d_d2.utils.parallel import default_workers

# That a process has ended is seen at once. A machine that is gone without closing its connections
# (power, network) is waited for this long; only the summary is lost if it was slow instead.
_PATIENCE = datetime.timedelta(hours=6)


def prepare_from_arguments(args: argparse.Namespace) -> None:
    """The whole command, in the one process of a machine, or in one of torchrun's.

    Args:
        args: of ``tools/prepare_clips.py``.

    Raises:
        SystemExit: with 1 when a video of any machine could not be stored whole.
        ValueError: a wrong argument, or no release.
        OSError: the cache cannot be written, or a process or another machine ended early.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # machines with a GPU and without one work together
    try:
        launch_main(_work, args)
    except ProcessExitedException as error:
        if error.exit_code == 1:
            raise SystemExit(1) from error
        raise OSError(f"{error}; what is stored stays: run the command again") from error


def _work(args: argparse.Namespace) -> None:
    """What one process does: its share of the videos."""
    rank, world = comm.get_rank(), comm.get_world_size()
    of_config = setup_cfg(args.config_file).INPUT
    workers = args.workers
    if workers is None:
        workers = max(1, default_workers() // comm.get_local_size())
    done = prepare_clips(
        args.root,
        args.cache,
        splits=(args.split,) if args.split else ("train", "test"),
        flow_method=of_config.FLOW_METHOD if args.method is None else args.method,
        length=of_config.CLIP.LENGTH if args.length is None else args.length,
        stride=of_config.CLIP.STRIDE if args.stride is None else args.stride,
        lossless=args.lossless,
        workers=workers,
        share=(rank, world),
    )
    shares = [done]
    if world > 1:
        try:
            distributed.monitored_barrier(timeout=_PATIENCE)
            shares = comm.all_gather(done)
        except RuntimeError as error:
            _report(args.cache, [done])
            raise OSError(
                "another machine ended before its share was done; what is stored stays: "
                "run the command again on all machines"
            ) from error
    if rank == 0:
        _report(args.cache, shares)
    comm.synchronize()  # torchrun stops all processes once one ends with an error
    if any(share.problems for share in shares):
        sys.exit(1)


def _report(cache: str, shares: list[Preparation]) -> None:
    problems = [problem for share in shares for problem in share.problems]
    for video_id, message in problems:
        print(f"{video_id}: {message}", file=sys.stderr)
    print(
        f"{cache}: {sum(share.num_videos for share in shares)} videos, "
        f"{sum(share.num_complete for share in shares)} of them stored before, "
        f"{len(problems)} with problems",
        flush=True,
    )
