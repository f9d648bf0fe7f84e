"""What a GPU did in each stage: read off a trace of torch's profiler.

A launch is a call of the runtime or the driver that put kernels, a copy or a fill into the stream; it belongs to the stage in
which the host made it, whenever the device got to it.
"""

from __future__ import annotations

import json
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, record_function

Span = dict[str, Any]
"""An event of a trace that lasts: `name`, `cat`, `ts` and `dur` in microseconds, perhaps `args`."""
END = "end of "
"""What a mark's name begins with."""
_BY_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
_CALLS = ("cuda_runtime", "cuda_driver")


@dataclass(frozen=True)
class Activity:
    """Of one stage: time of its kernels, copies and fills together, milliseconds, and the launches that they took."""

    device_ms: float = 0.0
    launches: int = 0


def traced(work: Callable[[Callable[[str], None]], object], trace: Path, *, with_stack: bool = False) -> list[Span]:
    """Run something under the profiler and write its trace; gives the events that last.

    `work` gets a function that says that what was done since the last mark was a stage.
    """

    def mark(stage: str) -> None:
        with record_function(END + stage):
            pass

    with torch.profiler.profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], with_stack=with_stack) as profiler:
        work(mark)
        torch.cuda.synchronize()
    profiler.export_chrome_trace(str(trace))
    return [event for event in json.loads(trace.read_text())["traceEvents"] if event.get("ph") == "X"]


def watch(work: Callable[[Callable[[str], None]], object]) -> dict[str, Activity]:
    """Run something under the profiler, with `traced`; gives what the GPU did in each stage that was marked."""
    with tempfile.TemporaryDirectory() as scratch:
        return by_stage(traced(work, Path(scratch) / "trace.json"))


def by_stage(spans: Sequence[Span]) -> dict[str, Activity]:
    """Sum what the device did by the stage in which it was launched."""
    marks = sorted((span["ts"], span["name"].removeprefix(END)) for span in spans if span["name"].startswith(END))
    ends = [end for end, _ in marks]
    found = {stage: Activity() for _, stage in marks}
    lasted: dict[int, float] = {}
    for span in spans:
        if span.get("cat") in _BY_DEVICE:  # a graph that was launched has many kernels
            call = span["args"]["correlation"]
            lasted[call] = lasted.get(call, 0.0) + span["dur"]
    for span in spans:
        call = (span.get("args") or {}).get("correlation")
        if span.get("cat") not in _CALLS or call not in lasted:
            continue
        if (number := bisect_left(ends, span["ts"])) < len(marks):  # what follows the last mark is no stage's
            stage = marks[number][1]
            before = found[stage]
            found[stage] = Activity(before.device_ms + lasted.pop(call) / 1000, before.launches + 1)
    return found
