"""What the page shows of a table: texts and sort keys for its template, points for its chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vtpbench.report.html.costs import Axis, Profile, axes, is_denominator
from vtpbench.report.tables.layout import CellText, cell_texts, clean, header
from vtpbench.report.tables.names import styles
from vtpbench.report.tables.rounding import half_up, paper
from vtpbench.report.tables.table import Block, Interval, Table, TableRow


@dataclass(frozen=True)
class ShownRow:
    """One place of the table and what it sorts by; None sorts last."""

    place: CellText
    key: float | str | None
    interval: str = ""
    length: str = ""
    """Tokens generated for an answer."""


@dataclass(frozen=True)
class Line:
    """A row of a table as the page shows it."""

    id: str
    row: TableRow
    pruner: int
    """Number of the row's label: its colour and shape; -1 = vanilla, 0 = random."""
    shown: tuple[ShownRow, ...]
    link: str = ""
    """Where its name leads; empty for nowhere."""


@dataclass(frozen=True)
class RowGroup:
    """The rows of a block, under its title."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Section:
    """A table as the page shows it, with its rows in groups."""

    id: str
    table: Table
    title: str
    header: tuple[str, ...]
    average: int
    """Place of Avg in the header; behind it stands how many benchmarks it is over."""
    groups: tuple[RowGroup, ...]
    pruners: tuple[tuple[int, str], ...]
    """Number and label of each pruner, vanilla first."""
    has_intervals: bool
    has_lengths: bool
    """Whether it is known of a place how long answers are."""
    axes: list[dict[str, Any]]
    points: list[dict[str, Any]]

    rising: frozenset[str] = frozenset()
    """Columns of costs: a first click sorts the least first."""

    @property
    def noted(self) -> set[int]:
        """Numbers of the table's notes that its rows refer to here."""
        return {note for group in self.groups for line in group.lines for shown in line.shown for note in shown.place.notes}


def section(table: Table, name: str, profiles: Sequence[Profile] = (), known: Mapping[str, int] | None = None) -> Section:
    """Prepare a table.

    Parameters
    ----------
    table : of accuracy
    name : starts all of its ids
    profiles : may know what its rows cost
    known : numbers that labels have in other tables, and keep

    """
    rows = [row for block in table.blocks for row in block.rows]
    vanilla = {row.label: -1 for row in rows if is_denominator(row)}
    named = [(row.label, pruner_name(row)) for row in rows]
    taken = {**vanilla, **{label: number for label, number in (known or {}).items() if label not in vanilla}}
    numbers = {label: number for label, number in styles(named, taken).items() if label in dict(named)}
    groups = tuple(_group(block, f"{name}-{i}", numbers) for i, block in enumerate(table.blocks))
    costs = axes([row for row in rows if row.average is not None], profiles)
    return Section(
        id=name,
        table=table,
        title=clean(table.title),
        header=header(table),
        average=len(table.columns) + 2,
        groups=groups,
        pruners=tuple((number, clean(label)) for label, number in numbers.items()),
        has_intervals=any(shown.interval for group in groups for line in group.lines for shown in line.shown),
        has_lengths=any(shown.length for group in groups for line in group.lines for shown in line.shown),
        axes=[{"key": a.key, "label": a.label, "title": a.title, "log": a.logarithmic, "source": a.source} for a in costs],
        points=[_point(group, line, costs) for group in groups for line in group.lines if line.row.average is not None],
    )


def pruner_name(row: TableRow) -> str:
    """Name of the pruner; a published row has a label alone."""
    return next((record.pruner.name for entry in row.entries for record in entry.records), row.label.casefold())


def _group(block: Block, name: str, numbers: dict[str, int]) -> RowGroup:
    return RowGroup(
        clean(block.title),
        tuple(Line(f"{name}-{i}", row, numbers[row.label], _shown(row)) for i, row in enumerate(block.rows)),
    )


def _shown(row: TableRow) -> tuple[ShownRow, ...]:
    name, observed, *entries, average, n = cell_texts(row)
    pairs = zip(entries, row.entries, strict=True)
    scores = (ShownRow(p, e.score, _text(e.interval), _length(e.answer_tokens)) for p, e in pairs)
    mean = ShownRow(average, row.average, _text(row.average_interval))
    return (ShownRow(name, clean(row.label)), ShownRow(observed, row.observed), *scores, mean, ShownRow(n, row.n))


def _text(interval: Interval | None) -> str:
    return "" if interval is None else " to ".join(map(paper, interval)) + " %"


def _length(tokens: float | None) -> str:
    return "" if tokens is None else f"answer: {half_up(tokens, 1)} tokens"


def _point(group: RowGroup, line: Line, known: list[Axis]) -> dict[str, Any]:
    row = line.row
    costs = {axis.key: axis.cost(row) for axis in known}
    return {
        "row": line.id,
        "pruner": line.pruner,
        "label": clean(row.label),
        "budget": group.title,
        "x": {key: None if cost is None else cost.value for key, cost in costs.items()},
        "xText": {key: "" if cost is None else cost.text for key, cost in costs.items()},
        "y": row.average,
        "yText": line.shown[-2].place.text,
        "interval": row.average_interval,
        "intervalText": line.shown[-2].interval,
        "partial": "" if row.n == len(row.entries) else line.shown[-1].place.text,
    }
