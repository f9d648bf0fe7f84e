"""What a device does at best: the largest rates of a matrix product and of a copy, by which a row's own are judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from vtpbench.harness.efficiency.timers import start_timer
from vtpbench.harness.records.efficiency import Ceilings


@dataclass(frozen=True)
class _Sizes:
    """Large enough that a launch does not count, and that no cache holds a copy; small enough for a second."""

    side: int
    """Rows and columns of the matrices."""
    copied_bytes: int
    repeats: int


_GPU, _CPU = _Sizes(8192, 1 << 30, 10), _Sizes(1536, 1 << 27, 5)


def measure_ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Multiply and copy a few times; the fastest counts."""
    sizes = _GPU if device.type == "cuda" else _CPU
    factor = torch.ones(sizes.side, sizes.side, dtype=dtype, device=device)
    product = torch.empty_like(factor)
    source = torch.ones(sizes.copied_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    with torch.inference_mode():
        multiplied = _fastest(lambda: torch.mm(factor, factor, out=product), device, sizes.repeats)
        copied = _fastest(lambda: target.copy_(source), device, sizes.repeats)
    return Ceilings(
        tflops_per_s=2 * sizes.side**3 / multiplied / 1e12,
        gb_per_s=2 * sizes.copied_bytes / copied / 1e9,
    )


def _fastest(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Seconds of the fastest repeat, after one for warming up."""
    times = []
    for _ in range(repeats + 1):
        timer = start_timer(device)
        work()
        timer.mark("")
        times += [lap.ms for lap in timer.laps()]
    return min(times[1:]) / 1000
