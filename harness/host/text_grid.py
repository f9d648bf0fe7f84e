"""Rows of text in aligned columns, for everything that commands print as one; reports have tables of their own."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

UNLIMITED = 100_000
"""Columns of a page on which nothing is folded."""
GAP = 2
"""Blanks between columns."""


def text_grid(rows: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
    """Write rows of text in aligned columns, two blanks apart, without blanks at the end of a line.

    Parameters
    ----------
    rows : equally long; a cell may have several lines
    width : columns into which long cells are folded, between words where these fit beside each other, so that nothing is cut
        off; None = as wide as the cells are

    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    page = Console(file=io.StringIO(), width=width or UNLIMITED, color_system=None, legacy_windows=False)
    grid = Table.grid(padding=(0, GAP))
    for _ in rows[0]:
        grid.add_column(overflow="fold")
    columns = None if width is None else _columns(rows, width)
    for row in rows:
        cells = list(map(Text, row))
        if columns is not None:
            cells = [Text("\n").join(cell.wrap(page, own)) for cell, own in zip(cells, columns, strict=True)]
        grid.add_row(*cells)
    with page.capture() as written:
        page.print(grid)
    return [line.rstrip() for line in written.get().splitlines()]


def text_table(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Write rows, of which the first names the columns, as a grid or, where that would break words, one row below the other."""
    if _fits(_longest_words(rows), width):
        return text_grid(rows, width)
    names, *others = rows
    lines = []
    for first, *cells in others:
        lines.append(first)
        for name, cell in zip(names[1:], cells, strict=True):
            if cell:
                text = f"{name}: {' '.join(cell.split())}"
                lines += textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
    return lines


def _columns(rows: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """Share a width among columns, taking from the widest what is too much; None where a word would have to be broken."""
    from rich.cells import cell_len

    least = _longest_words(rows)
    if not _fits(least, width):
        return None
    columns = [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in zip(*rows, strict=True)]
    while not _fits(columns, width):
        widest = max((n for n, own in enumerate(columns) if own > least[n]), key=lambda n: columns[n])
        columns[widest] -= 1
    return [max(1, own) for own in columns]


def _longest_words(rows: Sequence[Sequence[str]]) -> list[int]:
    """Columns that the longest word of each column takes."""
    from rich.cells import cell_len

    return [max((cell_len(word) for cell in column for word in cell.split()), default=0) for column in zip(*rows, strict=True)]


def _fits(columns: Sequence[int], width: int) -> bool:
    return sum(columns) + GAP * (len(columns) - 1) <= width
