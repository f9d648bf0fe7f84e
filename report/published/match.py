"""Which figure of a paper stands beside which measured one, and why the two may differ."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vtpbench.harness.records.record import BudgetInfo, ModelInfo, PrunerInfo, Record
from vtpbench.report.published.published import VANILLA, PaperBudget, PaperTable, Published, Reason, RowRule

ROUNDING = 0.051
"""Printed ratios, in per cent, have one decimal."""


def tables_of(figures: Published, model: ModelInfo) -> dict[str, PaperTable]:
    """Tables of a model, by name."""
    names = [_plain(model.id), _plain(model.label)]
    return {
        name: table
        for name, table in figures.tables.items()
        if table.known_as.family == model.family and any(_plain(known) in own for known in table.known_as.names for own in names)
    }


def columns_of(figures: Published, table: PaperTable, task: str) -> str | None:
    """Benchmark of a table that an lmms-eval task measures."""
    return next((name for name in table.benchmarks if task in figures.benchmarks[name].tasks), None)


def rows_of(figures: Published, pruner: PrunerInfo) -> frozenset[str]:
    """Names of the rows that a pruner stands beside: that of its own label, else all whose rule it fulfils."""
    labels = [row.pruner for table in figures.tables.values() for block in table.blocks for row in block.rows]
    own = {label for label in [VANILLA, *labels] if _plain(label) == _plain(pruner.label)}
    return frozenset(own or {label for label, rule in figures.pruners.items() if _fulfils(pruner, rule)})


def same_budget(printed: PaperBudget, asked: BudgetInfo) -> bool:
    """Whether a printed budget is the one that was asked for; ratios are compared as they are printed."""
    if asked.tokens is not None:
        return asked.tokens == (printed.tokens if printed.asked is None else printed.asked)
    return asked.ratio is not None and abs(100 * asked.ratio - printed.percent) <= ROUNDING


def reasons(figures: Published, place: Mapping[str, Any], record: Record) -> tuple[str, ...]:
    """Known reasons for a difference; `place` names the `tables`, `benchmarks`, `pruners` and `budgets` of the figure."""
    known = [reason.text for reason in figures.reasons if _concerns(reason, place, record)]
    n = figures.benchmarks[place["benchmarks"]].n
    if n is not None and record.n != n:
        known.append(f"other questions: {record.n} were asked, the printed split has {n}")
    return tuple(known)


def _concerns(reason: Reason, place: Mapping[str, Any], record: Record) -> bool:
    fields = {"tables": reason.tables, "benchmarks": reason.benchmarks, "pruners": reason.pruners, "budgets": reason.budgets}
    if any(values and place[name] not in values for name, values in fields.items()):
        return False
    if any(_look(record, path) not in values for path, values in reason.when.items()):
        return False
    return not reason.unless or any(_look(record, path) not in values for path, values in reason.unless.items())


def _look(record: Record, path: str) -> Any:
    """Follow a dotted path into a record."""
    value: Any = record
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name)
    return value


def _fulfils(pruner: PrunerInfo, rule: RowRule) -> bool:
    return pruner.name == rule.name and all(pruner.options.get(name) in allowed for name, allowed in rule.options.items())


def _plain(text: str) -> str:
    """Leave out case and punctuation, but for a minus: layer -2 is not layer 2."""
    return re.sub(r"[^a-z0-9-]|(?<! )-|-(?!\d)", "", text.lower())
