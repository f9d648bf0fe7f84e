"""Markdown: pipe tables that read well as text, and on a code-hosting site."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.cells import cell_len

from vtpbench.report.tables.layout import CellText, cell_texts, clean, header, marks
from vtpbench.report.tables.table import Table

_SPECIAL = re.compile(r"[&<>|\\`$*~#\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")  # an underscore inside a word means nothing


def markdown(tables: Sequence[Table]) -> str:
    """Print all tables, with headings."""
    return "\n".join(_table(table) for table in tables)


def escape(text: str) -> str:
    """Make a text show as it is: what Markdown or HTML would take for its own becomes an entity."""
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", clean(text))


def pipe_table(names: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> list[str]:
    """Lay out cells, escaped before, as lines of equal width.

    `text_columns` from the left hold text, the others numbers; a row of one cell is a heading within the table.
    """
    n = len(names)
    lines = [names, *([f"**{row[0]}**", *[""] * (n - 1)] if len(row) == 1 < n else row for row in rows)]
    widths = [max(3, *map(cell_len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width if i < text_columns else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return [f"| {' | '.join(_padded(line, widths, text_columns))} |" for line in [lines[0], rule, *lines[1:]]]


def _padded(line: Sequence[str], widths: Sequence[int], text_columns: int) -> list[str]:
    spaces = [" " * (width - cell_len(value)) for value, width in zip(line, widths, strict=True)]
    return [v + s if i < text_columns else s + v for i, (v, s) in enumerate(zip(line, spaces, strict=True))]


def _table(table: Table) -> str:
    rows: list[list[str]] = []
    for block in table.blocks:
        rows.append([escape(block.title)])
        rows += ([_place(place) for place in cell_texts(row)] for row in block.rows)
    text = [f"## {escape(table.title)}", "", *pipe_table([*map(escape, header(table))], rows), ""]
    if table.notes:
        text += [*(f"{marks((i,))} {escape(note)}  " for i, note in enumerate(table.notes, 1)), ""]
    return "\n".join([*text, *(f"- **{escape(name)}:** {escape(fact)}" for name, fact in table.footer), ""])


def _place(place: CellText) -> str:
    below = f"<br>{escape(place.below)}" if place.below else ""
    return f"{escape(place.text)}{marks(place.notes)}{below}"
