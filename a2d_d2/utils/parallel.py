"""Running a function over many items in several processes, with a progress bar."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import cv2
from tqdm import tqdm


def default_workers() -> int:
    """The number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start_worker() -> None:
    cv2.setNumThreads(1)  # the processes already use all cores


def parallel_map(
    function: Callable,
    items: Sequence,
    *,
    workers: int | None = None,
    description: str = "",
    unit: str = "it",
    progress: bool = True,
) -> Iterator:
    """Yields ``function(item)`` in the order of ``items``, computed by ``workers`` processes.

    Args:
        function: a picklable function of one argument.
        items: the arguments.
        workers: number of processes; None uses every core; 0 or 1 runs in this process.
        description, unit, progress: of the progress bar (with rate and ETA) on standard error.

    Raises:
        OSError: a worker process died.
    """
    workers = min(default_workers() if workers is None else workers, len(items))

    def show(results: Iterable) -> Iterable:
        return tqdm(results, total=len(items), desc=description, unit=unit, disable=not progress)

    if workers <= 1:
        yield from show(map(function, items))
        return
    # "spawn": forking a process that already runs threads (OpenCV, torch) can deadlock.
    context = multiprocessing.get_context("spawn")
    chunk = max(1, len(items) // (workers * 64))
    executor = ProcessPoolExecutor(workers, context, _start_worker)
    try:
        yield from show(executor.map(function, items, chunksize=chunk))
    except BrokenProcessPool as error:
        raise OSError(
            "a worker process died (out of memory, or a file that crashes its decoder); "
            "one worker alone shows which item it was"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)
