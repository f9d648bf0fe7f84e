"""Rows of text in aligned columns, for everything that commands print as one; reports have tables of their own."""

from __future__ import annotations

import io
from collections.abc import Sequence

UNLIMITED = 100_000
"""Columns of a page on which nothing is folded."""


def text_grid(rows: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
    """Write rows of text in aligned columns, two blanks apart, without blanks at the end of a line.

    Parameters
    ----------
    rows : equally long; a cell may have several lines
    width : columns into which long cells are folded, so that nothing is cut off; None = as wide as the cells are

    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for _ in rows[0]:
        grid.add_column(overflow="fold")
    for row in rows:
        grid.add_row(*map(Text, row))
    page = Console(file=io.StringIO(), width=width or UNLIMITED, color_system=None, legacy_windows=False)
    with page.capture() as written:
        page.print(grid)
    return [line.rstrip() for line in written.get().splitlines()]
