"""What the chart of time against tokens shows: Figure 3 of the OC-VTP paper, measured, with a choice of what is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from vtpbench.report.efficiency.row import EfficiencyRow, Spread
from vtpbench.report.html.costs import TIMES
from vtpbench.report.tables.amounts import milliseconds
from vtpbench.report.tables.layout import clean
from vtpbench.report.tables.rounding import half_up


def _stage(name: str) -> Callable[[EfficiencyRow], Spread | None]:
    return lambda row: None if row.stages_ms is None else row.stages_ms[name]


def in_milliseconds(value: float) -> str:
    """Word a time."""
    return f"{milliseconds(value)} ms"


def as_speedup(value: float) -> str:
    """Word a speed-up."""
    return f"{value:.2f} times as fast as vanilla"


CHOICES: dict[str, tuple[str, Callable[[EfficiencyRow], Spread | float | None]]] = {
    **TIMES,
    "ttft-device": ("Device time to first token, ms", lambda row: row.device_ttft_ms),
    "tpot": ("Time of each further token, ms", lambda row: row.tpot_ms),
    "prefill": ("Prefill alone, ms", _stage("prefill")),
    "pruner": ("Pruner alone, ms", _stage("pruner")),
    "ttft-speedup": ("Speed-up of the first token over vanilla", lambda row: row.ttft_speedup),
    "device-speedup": ("Speed-up of the first token over vanilla, by device time", lambda row: row.device_speedup),
    "total-speedup": ("Speed-up end to end over vanilla", lambda row: row.total_speedup),
}
"""Label and value, by key."""


def choices(rows: Iterable[EfficiencyRow]) -> list[dict[str, str]]:
    """List what was measured of any of some rows."""
    known = list(rows)
    return [{"key": key, "label": label} for key, (label, of) in CHOICES.items() if any(of(row) is not None for row in known)]


def point(row: EfficiencyRow, line: str, pruner: int) -> dict[str, Any]:
    """Describe a row for the chart; `line` is the id of its table row, `pruner` its colour and shape."""
    return {
        "row": line,
        "pruner": pruner,
        "label": clean(row.pruner),
        "budget": f"budget {clean(row.budget)}",
        "x": row.tokens,
        "xText": "" if row.tokens is None else f"{half_up(row.tokens, 1)} tokens",
        "y": {
            key: reading(of(row), in_milliseconds if label.endswith("ms") else as_speedup) for key, (label, of) in CHOICES.items()
        },
    }


def reading(value: Spread | float | None, words: Callable[[float], str]) -> dict[str, Any] | None:
    """Describe a value for a chart; `words` says one that has no spread."""
    if value is None:
        return None
    if isinstance(value, Spread):
        text = f"{milliseconds(value.median)} ms"
        if value.iqr is None:
            return {"value": value.median, "text": text, "interval": None}
        text += f" (quartiles {milliseconds(value.low)} to {milliseconds(value.high)})"
        return {"value": value.median, "text": text, "interval": (value.low, value.high)}
    return {"value": value, "text": words(value), "interval": None}
