"""Where the time of a call goes, operator by operator."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from a2d_d2.benchmark.common import synchronize
from a2d_d2.utils.files import atomic_path, write_text

MOST_ROWS = 50  # of the table


def profile_calls(function: Callable[[], None], folder: str | os.PathLike, name: str) -> None:
    """Profiles one call, after one to warm up.

    Writes ``NAME.txt``, the operators by their own time, and ``NAME.json``, a trace for
    chrome://tracing or https://ui.perfetto.dev, into ``folder``.
    """
    function()
    activities = [ProfilerActivity.CPU]
    sort_by = "self_cpu_time_total"
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
        sort_by = "self_cuda_time_total"
    with profile(activities=activities, record_shapes=True) as profiler:
        function()
        synchronize()
    averages = profiler.key_averages()
    table = averages.table(sort_by=sort_by, row_limit=MOST_ROWS, max_name_column_width=60)
    write_text(Path(folder) / f"{name}.txt", table)
    with atomic_path(Path(folder) / f"{name}.json") as temporary:
        profiler.export_chrome_trace(str(temporary))
