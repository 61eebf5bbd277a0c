"""What a run says of itself: config.yaml, log.txt, metrics.json and TensorBoard's file.

They are Detectron2's, for a disk that may be full: one line, no tracebacks, no half config.yaml.
"""

import argparse
import contextlib
import logging
import os
import sys
from functools import cached_property
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import hooks
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import (
    CommonMetricPrinter,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
)
from detectron2.utils.logger import setup_logger

from a2d_d2.engine.provenance import write_start
from a2d_d2.utils.files import explained, write_text

_EVENTS = "events.out.tfevents"


def set_up(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Detectron2's default_setup: config.yaml and logs in OUTPUT_DIR, and the seed.

    A training also writes where and with what it was started (provenance.json).

    Raises:
        OSError: OUTPUT_DIR cannot be written.
    """
    rank = comm.get_rank()
    if comm.is_main_process():
        write_text(Path(cfg.OUTPUT_DIR, "config.yaml"), cfg.dump())
        if not args.eval_only:
            write_start(cfg.OUTPUT_DIR, resume=args.resume)
    file = LogFile(Path(cfg.OUTPUT_DIR, f"log.txt.rank{rank}" if rank else "log.txt"))
    for name in ("fvcore", "detectron2", "a2d_d2"):
        setup_logger(distributed_rank=rank, name=name).addHandler(file)
    logger = logging.getLogger(__name__)
    logger.info(f"Rank of current process: {rank}. World size: {comm.get_world_size()}")
    logger.info(f"Command line arguments: {args}")
    logger.info(f"Environment info:\n{collect_env_info()}")
    logger.info(f"Running with full config:\n{cfg.dump()}")
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    if not args.eval_only:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK


class LogFile(logging.FileHandler):
    """A log that ends no run: of a full disk the files of results beside it tell, once."""

    def __init__(self, path: Path):
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            super().__init__(path, encoding="utf-8")
        self.setFormatter(
            logging.Formatter(
                "[%(asctime)s] %(name)s %(levelname)s: %(message)s", datefmt="%m/%d %H:%M:%S"
            )
        )

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class StepPrinter(CommonMetricPrinter):
    """Detectron2's, but a step is printed once: of one printed again it cannot tell the time."""

    _printed = None

    def write(self) -> None:
        step = get_event_storage().iter
        if step != self._printed:
            super().write()
            self._printed = step


class MetricsFile(JSONWriter):
    """``metrics.json``; its errors name the file."""

    def __init__(self, path: str):
        self._path = path
        with explained(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            super().__init__(path)

    def write(self) -> None:
        with explained(self._path):
            super().write()

    def close(self) -> None:
        with explained(self._path):
            super().close()


class EventsFile(TensorboardXWriter):
    """TensorBoard's file, on the disk at the end of a write; its errors name the file."""

    def __init__(self, folder: str):
        super().__init__(folder)
        self._folder = Path(folder)

    @cached_property
    def _writer(self):
        try:
            return super()._writer
        except OSError:
            for path in self._folder.glob(f"{_EVENTS}.*.{os.getpid()}.*"):
                if path.stat().st_size == 0:
                    path.unlink()
            raise

    def write(self) -> None:
        with explained(self._folder / _EVENTS):
            super().write()
            if "_writer" in self.__dict__:
                self._writer.flush()

    def close(self) -> None:
        with explained(self._folder / _EVENTS):
            super().close()


class MetricsHook(hooks.PeriodicWriter):
    """Detectron2's hook. Of a training that ends early it is told why, not that its last lines
    cannot be written either."""

    def after_train(self) -> None:
        ended_early = self.trainer.iter < self.trainer.max_iter
        for writer in self._writers:
            with contextlib.suppress(OSError) if ended_early else contextlib.nullcontext():
                try:
                    writer.write()
                finally:
                    writer.close()
