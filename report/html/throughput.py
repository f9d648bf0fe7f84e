"""What the page shows of a model that was measured at several batches: a table and a chart of questions a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vtpbench.report.efficiency.columns import Amount
from vtpbench.report.efficiency.row import EfficiencyRow, Spread
from vtpbench.report.efficiency.throughput import Curve, Throughput
from vtpbench.report.html.speed import SpeedLine, SpeedSection
from vtpbench.report.html.times import as_speedup, in_milliseconds, reading
from vtpbench.report.tables.amounts import milliseconds, significant
from vtpbench.report.tables.layout import NONE, clean
from vtpbench.report.tables.names import styles


def _rate(value: float) -> str:
    return f"{significant(value, 3)} questions a second"


QUANTITIES: dict[str, tuple[str, Callable[[EfficiencyRow], Spread | float | None], Callable[[float], str]]] = {
    "questions": ("Questions a second", lambda row: row.questions_per_s, _rate),
    "ttft": ("Time to first token of the batch, ms", lambda row: row.ttft_ms, in_milliseconds),
    "speedup": ("End to end speed-up over vanilla", lambda row: row.total_speedup, as_speedup),
}
"""Label, value and words of what the chart can show, by key."""


def throughput_section(measured: Throughput, name: str, numbers: Mapping[str, int]) -> SpeedSection:
    """Prepare the table; `name` starts its ids, `numbers` are those of pruners that the page has shown already."""
    vanilla, *pruned = measured.curves
    named = [(clean(curve.pruner), curve.name) for curve in pruned]
    taken = {label: numbers[label] for label, _ in named if label in numbers}
    numbers = {**styles(named, taken), clean(vanilla.pruner): -1}
    lines = tuple(
        SpeedLine(f"{name}-{n}", numbers[clean(curve.pruner)], clean(curve.pruner), _amounts(curve, n, measured.batches))
        for n, curve in enumerate(measured.curves)
    )
    budgets = measured.budgets or (vanilla.budget,)
    return SpeedSection(
        id=name,
        title=f"Throughput: {clean(measured.title)}",
        header=(
            ("Pruner", "ascending"),
            ("Budget", "ascending"),
            *((f"Batch {batch}, questions/s (TTFT ms)", "descending") for batch in measured.batches),
        ),
        lines=lines,
        pruners=tuple({line.pruner: line.label for line in lines}.items()),
        choices=_choices(budgets),
        points=[point for curve, line in zip(measured.curves, lines, strict=True) for point in _points(curve, line)],
        notes=(),
        facts=(
            ("questions a second", "prompts of a batch, divided by the median time from pictures to last tokens"),
            *_facts(measured),
        ),
        by_batch=True,
    )


def _choices(budgets: tuple[str, ...]) -> list[dict[str, Any]]:
    """List each quantity at each budget."""
    return [
        {"key": f"{key}-{n}", "label": f"{label}, {_budget(budget)}", "quantity": key, "budget": _budget(budget), "log": True}
        for n, budget in enumerate(budgets)
        for key, (label, _, _) in QUANTITIES.items()
    ]


def _facts(measured: Throughput) -> tuple[tuple[str, str], ...]:
    return tuple((name, fact) for name, fact in measured.first.footer if name in ("device", "prompt", "versions"))


def _budget(budget: str) -> str:
    return f"budget {clean(budget)}"


def _amounts(curve: Curve, number: int, batches: tuple[int, ...]) -> tuple[Amount, ...]:
    return (Amount(clean(curve.budget), float(number)), *(_amount(curve.by_batch.get(batch)) for batch in batches))


def _amount(row: EfficiencyRow | None) -> Amount:
    if row is None or row.questions_per_s is None or row.ttft_ms is None:
        return Amount(NONE)
    return Amount(significant(row.questions_per_s, 3), row.questions_per_s, f"({milliseconds(row.ttft_ms.median)})")


def _points(curve: Curve, line: SpeedLine) -> list[dict[str, Any]]:
    return [
        {
            "row": line.id,
            "pruner": line.pruner,
            "label": line.label,
            "budget": _budget(curve.budget),
            "x": batch,
            "y": {key: reading(of(row), words) for key, (_, of, words) in QUANTITIES.items()},
        }
        for batch, row in curve.by_batch.items()
    ]
