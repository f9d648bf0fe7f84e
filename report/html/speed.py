"""What the page shows of efficiency records: a table and a chart each, with the colours and shapes of the tables of accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vtpbench.report.efficiency.columns import ACCURACY, TIMES, Amount, EfficiencyColumn, amounts, columns, facts
from vtpbench.report.efficiency.row import EfficiencyRow
from vtpbench.report.efficiency.table import EfficiencyTable
from vtpbench.report.html.costs import Profile
from vtpbench.report.html.times import choices, point
from vtpbench.report.tables.layout import clean
from vtpbench.report.tables.names import styles

LATER = ("TPOT", "vision", "pruner", "prefill", "decode", "KV", "peak")
"""Columns that the page shows behind all others."""


@dataclass(frozen=True)
class SpeedLine:
    """One row; `pruner` is the number of its colour and shape, -1 = vanilla."""

    id: str
    pruner: int
    label: str
    amounts: tuple[Amount, ...]
    link: str = ""
    """Where its name leads; empty for nowhere."""


@dataclass(frozen=True)
class SpeedSection:
    """One efficiency record; `facts` are names and texts."""

    id: str
    title: str
    header: tuple[tuple[str, str], ...]
    """Names of columns, and how a first click sorts them: best first."""
    lines: tuple[SpeedLine, ...]
    pruners: tuple[tuple[int, str], ...]
    """Number and label of each pruner, vanilla first."""
    choices: Sequence[Mapping[str, Any]]
    points: list[dict[str, Any]]
    """Empty where vanilla stands alone, or nothing was timed."""
    notes: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    by_batch: bool = False
    """Whether it joins the records of several batches."""


def speed_section(profile: Profile, name: str, numbers: Mapping[str, int]) -> SpeedSection:
    """Prepare a table; `name` starts its ids, `numbers` are those of pruners that the page has shown already."""
    rows, shown = profile.table.rows, _ordered(profile.table)
    named = [(clean(row.pruner), row.name) for row in rows[1:]]
    taken = {label: numbers[label] for label, _ in named if label in numbers}
    numbers = {**styles(named, taken), clean(rows[0].pruner): -1}
    lines = tuple(
        _line(row, f"{name}-{number}", numbers[clean(row.pruner)], profile.budget_tokens(number), shown)
        for number, row in enumerate(rows)
    )
    points = [point(row, line.id, line.pruner) for row, line in zip(rows, lines, strict=True)]
    known = choices(rows)
    return SpeedSection(
        id=name,
        title=f"Efficiency: {clean(profile.table.title)}",
        header=(("Pruner", "ascending"), ("Budget", "descending"), *map(_heading, shown)),
        lines=lines,
        pruners=tuple({line.pruner: line.label for line in lines}.items()),
        choices=known,
        points=points if known and any(row.status == "ok" for row in rows[1:]) else [],
        notes=tuple(map(clean, profile.table.notes)),
        facts=facts(profile.table),
    )


def _ordered(table: EfficiencyTable) -> tuple[EfficiencyColumn, ...]:
    """Sort columns by what a reader asks for first."""
    return tuple(sorted(columns(table), key=lambda column: (column.name in LATER, column.name != ACCURACY)))


def _heading(column: EfficiencyColumn) -> tuple[str, str]:
    """Name a column, and say how a first click sorts it."""
    text = f"{column.name} {'speed-up' if column.unit == TIMES else column.unit}".strip()
    return text[:1].upper() + text[1:], "descending" if ACCURACY in column.name or column.unit in (TIMES, "/s") else "ascending"


def _line(row: EfficiencyRow, name: str, number: int, budget: float, shown: tuple[EfficiencyColumn, ...]) -> SpeedLine:
    return SpeedLine(name, number, clean(row.pruner), (Amount(clean(row.budget), budget), *amounts(row, shown)))
