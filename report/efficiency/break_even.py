"""Where pruning begins to pay, by the clock and by the device's time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vtpbench.report.efficiency.row import EfficiencyRow


@dataclass(frozen=True)
class BreakEven:
    """Where pruning begins to pay."""

    budget: str | None
    """Largest that brings the first token earlier than vanilla does; None = none of those measured."""
    within_spread: bool = False
    """Whether the quartiles of its speed-up include 1."""

    def __str__(self) -> str:
        return f"{self.budget or 'none of those measured'}{' (within the spread)' * self.within_spread}"


def elapsed(row: EfficiencyRow) -> tuple[float, float] | None:
    """Speed-up of the first token, and its lower quartile."""
    return None if row.ttft_speedup is None else (row.ttft_speedup, row.ttft_speedup_low or 0)


def on_device(row: EfficiencyRow) -> tuple[float, float] | None:
    """Speed-up in the device's time, of which no spread is known."""
    return None if row.device_speedup is None else (row.device_speedup, row.device_speedup)


def break_even(
    rows: Sequence[EfficiencyRow], speedup: Callable[[EfficiencyRow], tuple[float, float] | None]
) -> dict[str, BreakEven]:
    """Look among the rows that have fewer tokens than vanilla, by a speed-up that the table shows."""
    found = {}
    for label in dict.fromkeys(row.pruner for row in rows[1:]):
        fewer = [row for row in rows[1:] if row.pruner == label and row.tokens is not None and row.tokens < (rows[0].tokens or 0)]
        known = [(row, *gain) for row in fewer if (gain := speedup(row)) is not None]
        paying = [(row, low) for row, gain, low in known if gain > 1]
        best = max(paying, key=lambda found: found[0].tokens or 0, default=None)
        if known:
            found[label] = BreakEven(None) if best is None else BreakEven(best[0].budget, best[1] <= 1)
    return found
