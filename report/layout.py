"""What stands in each place of a printed table: the same words for Markdown, LaTeX and a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vtpbench.report.rounding import half_up, paper, paper_spread
from vtpbench.report.table import Entry, Row, Table

NONE = "-"


_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Place:
    """One place of a table: a text, footnote numbers, and a second line."""

    text: str
    below: str = ""
    notes: tuple[int, ...] = ()


def header(table: Table) -> tuple[str, ...]:
    """Column names; the first column is text, the others are numbers."""
    return ("Pruner", "Tokens", *map(clean, table.columns), "Avg", "n")


def places(row: Row) -> tuple[Place, ...]:
    """Fill one row, in the order of `header`."""
    observed = NONE if row.observed is None else str(half_up(row.observed, 1))
    n = str(row.n) if row.n == len(row.entries) else f"{row.n} of {len(row.entries)}"
    return (Place(clean(row.label)), Place(observed), *map(_entry, row.entries), Place(_average(row)), Place(n))


def marks(notes: Sequence[int]) -> str:
    """Print footnote numbers as superscript characters."""
    return ",".join(map(str, notes)).translate(_SUPERSCRIPT)


def clean(text: str) -> str:
    """Make one printable line of a text from outside."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def _entry(entry: Entry) -> Place:
    if entry.score is None:
        return Place(entry.status, notes=entry.notes)
    score = paper(entry.score) if entry.spread is None else paper_spread(entry.score, entry.spread)
    return Place(score, NONE if entry.relative is None else f"{paper(entry.relative)} %", entry.notes)


def _average(row: Row) -> str:
    if row.average is None:
        return NONE
    return f"{paper(row.average) if row.average_spread is None else paper_spread(row.average, row.average_spread)} %"
