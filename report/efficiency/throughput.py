"""Questions a second against the batch: tables that differ in nothing but the batch, joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vtpbench.report.efficiency.row import EfficiencyRow
from vtpbench.report.efficiency.table import EfficiencyTable


@dataclass(frozen=True)
class Curve:
    """One pruner at one budget; vanilla has the budget of all tokens."""

    pruner: str
    """Its label."""
    name: str
    budget: str
    by_batch: Mapping[int, EfficiencyRow]
    """What was measured, batches ascending."""


@dataclass(frozen=True)
class Throughput:
    """What one model answers at several batches; the first curve is vanilla's."""

    title: str
    conditions: Mapping[str, str | int | None]
    """Those of all tables, without the batch."""
    batches: tuple[int, ...]
    curves: tuple[Curve, ...]
    first: EfficiencyTable
    """The table of the smallest batch."""

    @property
    def budgets(self) -> tuple[str, ...]:
        """Budgets of the pruned curves, as they appear."""
        return tuple(dict.fromkeys(curve.budget for curve in self.curves[1:]))


def throughputs(tables: Sequence[EfficiencyTable]) -> list[Throughput]:
    """Join tables of one model, machine and prompt; those of a single batch have no curve. Of two alike the last counts."""
    groups: dict[tuple[object, ...], dict[int, EfficiencyTable]] = {}
    for table in tables:
        if table.rows[0].questions_per_s is not None:
            alike = {**table.conditions, "batch": None, "prompt": dict(table.footer)["prompt"]}
            groups.setdefault(tuple(alike.items()), {})[int(table.conditions["batch"] or 1)] = table
    return [_joined(dict(sorted(group.items()))) for group in groups.values() if len(group) > 1]


def _joined(group: Mapping[int, EfficiencyTable]) -> Throughput:
    rows: dict[tuple[str, str], dict[int, EfficiencyRow]] = {}
    for batch, table in group.items():
        for row in table.rows:
            if row.questions_per_s is not None:
                rows.setdefault((row.pruner, row.budget), {})[batch] = row
    curves = (Curve(label, next(iter(own.values())).name, budget, own) for (label, budget), own in rows.items())
    first = next(iter(group.values()))
    conditions = {name: value for name, value in first.conditions.items() if name != "batch"}
    title = first.title.replace(f", batch {first.conditions['batch']}", "")
    return Throughput(title, conditions, tuple(group), tuple(curves), first)
