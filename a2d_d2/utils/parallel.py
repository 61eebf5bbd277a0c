"""Running a function over many items: in several processes, or ahead in a background thread."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
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
    end_with_parent()


def end_with_parent() -> None:
    """Lets this process end once the one that started it is gone, instead of waiting for ever."""

    def wait() -> None:
        parent.join()
        os._exit(1)

    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=wait, daemon=True).start()


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


_END = object()


def map_ahead(function: Callable, items: Iterable, ahead: int) -> Iterator:
    """Yields ``function(item)`` in order, computed in a background thread.

    The thread also takes the items, so decoding a video may be what giving them means. It works at
    most ``ahead`` items ahead of the consumer, and has ended when the iteration has: at the last
    item, at an error (of ``function`` or of ``items``, which is raised here), and when the consumer
    closes or drops the iterator; an item in work is awaited.

    Args:
        function: of one item.
        items: taken by the thread alone.
        ahead: at least 1.
    """
    iterator = iter(items)

    def work():
        item = next(iterator, _END)
        return _END if item is _END else function(item)

    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="a2d_d2-ahead")
    try:
        results = deque(executor.submit(work) for _ in range(ahead))
        while (result := results.popleft().result()) is not _END:
            results.append(executor.submit(work))
            yield result
    finally:
        executor.shutdown(cancel_futures=True)
