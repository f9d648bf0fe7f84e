"""What stands in each place of a printed table: the same words for Markdown, LaTeX and a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vtpbench.report.tables.conventions import LEVEL
from vtpbench.report.tables.footer import NOT_BETTER, TIED
from vtpbench.report.tables.rounding import half_up, paper, paper_spread
from vtpbench.report.tables.table import Table, TableEntry, TableRow

NONE = "-"
LESS = "↓"

_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class CellText:
    """One place of a table: a text, footnote numbers, and a second line."""

    text: str
    below: str = ""
    notes: tuple[int, ...] = ()


def header(table: Table) -> tuple[str, ...]:
    """Column names; the first column is text, the others are numbers. An arrow marks what is better the less it is."""
    falling = table.falling
    columns = (f"{clean(name)} {LESS}" if name in falling else clean(name) for name in table.columns)
    return ("Pruner", "Tokens", *columns, "Avg", "n")


def cell_texts(row: TableRow) -> tuple[CellText, ...]:
    """Fill one row, in the order of `header`."""
    observed = NONE if row.observed is None else str(half_up(row.observed, 1))
    n = str(row.n) if row.n == len(row.entries) else f"{row.n} of {len(row.entries)}"
    return (CellText(clean(row.label)), CellText(observed), *map(_entry, row.entries), _average(row), CellText(n))


def marks(notes: Sequence[int]) -> str:
    """Print footnote numbers as superscript characters."""
    return ",".join(map(str, notes)).translate(_SUPERSCRIPT)


def clean(text: str) -> str:
    """Make one printable line of a text from outside."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def share(widths: Sequence[int], available: int, gap: int, names: int) -> list[list[int]]:
    """Share numbered columns among as many grids as a width needs; each begins with the `names` first columns."""
    groups = [[*range(names)]]
    for i, width in enumerate(widths[names:], names):
        taken = sum(widths[j] + gap for j in groups[-1])
        if taken + width > available and len(groups[-1]) > names:
            groups.append([*range(names)])
        groups[-1].append(i)
    return groups


def _entry(entry: TableEntry) -> CellText:
    if entry.status == "unpublished":
        return CellText(NONE)
    if entry.score is None:
        return CellText(entry.status, notes=entry.notes)
    score = paper(entry.score) if entry.spread is None else paper_spread(entry.score, entry.spread)
    return CellText(score, NONE if entry.relative is None else f"{paper(entry.relative)} %", entry.notes)


def _average(row: TableRow) -> CellText:
    """With an interval, `±` is its half width, and the spread over seeds stands below."""
    if row.average is None:
        return CellText(NONE)
    half_width = None if row.average_interval is None else (row.average_interval[1] - row.average_interval[0]) / 2
    tried = half_width is not None or row.notes
    spread = half_width if tried else row.average_spread
    text = paper(row.average) if spread is None else paper_spread(row.average, spread)
    below = f"seeds ± {half_up(row.average_spread, 1)}" if tried and row.average_spread is not None else ""
    return CellText(f"{text} %{symbols(row)}", below, row.notes)


def symbols(row: TableRow) -> str:
    """Say with marks what the tests found of a row."""
    same = row.p_value is not None and row.p_value >= 1 - LEVEL
    return TIED * row.tied + NOT_BETTER * same
