"""Efficiency tables as LaTeX, laid out as the tables of accuracy are: what belongs to a number stands below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from vtpbench.report.efficiency.columns import TIMES, EfficiencyColumn, amounts, columns, facts
from vtpbench.report.efficiency.row import EfficiencyRow
from vtpbench.report.efficiency.table import EfficiencyTable
from vtpbench.report.formats.latex import TablePart, escape, fact_lines, line, part_of
from vtpbench.report.formats.latex import latex as document

ROWS = 20
"""On a page, two lines each, with what stands below them."""


def latex(tables: Sequence[EfficiencyTable]) -> str:
    """Write efficiency tables as LaTeX."""
    return document((), parts(tables))


def parts(tables: Sequence[EfficiencyTable]) -> list[TablePart]:
    """Lay out each table: units below the headings, interquartile ranges below the times; one that is too long in parts."""
    return [part for table in tables for part in _parts(table)]


def _parts(table: EfficiencyTable) -> Iterator[TablePart]:
    shown = columns(table)
    units = ["\N{MULTIPLICATION SIGN}" if column.unit == TIMES else column.unit for column in shown]
    head = (("Pruner", "Budget", *(column.name for column in shown)), ("", "", *units))
    rows = [_texts(row, shown) for row in table.rows]
    widths = [max(map(len, column)) for column in zip(*head, *chain(*rows), strict=True)]
    notes = [escape(note) + r"\par" for note in table.notes]
    pages = [rows[i : i + ROWS] for i in range(0, len(rows), ROWS)]
    for number, page in enumerate(pages, 1):
        body = [r"\midrule", *(_line(texts) for row in page for texts in row if any(texts))]
        title = f"{table.title} ({number} of {len(pages)})" if len(pages) > 1 else table.title
        below = [*notes, *fact_lines(facts(table))] if number == len(pages) else []
        yield part_of(title, [_line(texts) for texts in head], body, below, widths, names=2)


def _texts(row: EfficiencyRow, shown: tuple[EfficiencyColumn, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    places = amounts(row, shown)
    return (row.pruner, row.budget, *(at.text for at in places)), ("", "", *(at.below for at in places))


def _line(cells: Sequence[str]) -> str:
    return line([escape(cell) for cell in cells])
