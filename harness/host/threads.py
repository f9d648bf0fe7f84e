"""Pictures are prepared in threads: Pillow and numpy let others run while they are at work on one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
R = TypeVar("R")
MOST = 8
"""Threads at a time: with more, what Python itself does for a picture is what takes the time."""


def processors() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_beside(device: torch.device) -> int:
    """Count the threads that prepare pictures for a device; where that is a processor the model takes all there are."""
    return 1 if device.type == "cpu" else min(MOST, processors())


def in_threads(work: Callable[[Sequence[T]], R], items: Sequence[T], threads: int) -> list[R]:
    """Work on items in so many threads, each at a run of consecutive ones.

    Gives what `work` gave for each run, in their order; of several errors the first in that order is raised.
    """
    size = max(1, -(-len(items) // threads))
    runs = [items[start : start + size] for start in range(0, len(items), size)] if items else []
    if len(runs) < 2:
        return [work(run) for run in runs]
    with ThreadPoolExecutor(len(runs), "pictures") as pool:
        return list(pool.map(work, runs))
