"""The same tables for a terminal, by rich; one that is too narrow gets the columns in several tables, never cut numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from vtpbench.report.tables.layout import CellText, cell_texts, clean, header, marks, share
from vtpbench.report.tables.table import Table

_GAP = "  "
LEAST_NAME, MOST_TITLE = 12, 14
"""Columns below which a row's name is not folded, and from which on a column's title is."""


@dataclass(frozen=True)
class Terminal:
    """Tables as something that a rich console prints."""

    tables: Sequence[Table]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay the tables out for the width at hand."""
        for table in self.tables:
            yield Text(clean(table.title), style="bold")
            yield from _grids(table, console, options.max_width)
            yield from (Text.assemble((marks((i,)), "yellow"), " ", clean(note)) for i, note in enumerate(table.notes, 1))
            yield from [Text()] if table.notes else []
            yield from (Text.assemble((f"{clean(name)}: ", "bold"), (clean(fact), "dim")) for name, fact in table.footer)
            yield Text()


def _grids(table: Table, console: Console, width: int) -> Iterator[Text]:
    names = header(table)
    rows = [[_lines(cell) for cell in cell_texts(row)] for block in table.blocks for row in block.rows]
    cells = [max(_width(row[i]) for row in rows) if rows else 0 for i in range(len(names))]
    widths = [
        min(cells[0], max(LEAST_NAME, width // 2)),
        *(max(cell, _title_width(name)) for name, cell in zip(names[1:], cells[1:], strict=True)),
    ]
    titles = [_folded(Text(name, "bold"), console, wide) for name, wide in zip(names, widths, strict=True)]
    for shown in share(widths, width, len(_GAP), names=1):
        shape = [widths[i] for i in shown]
        yield Text()
        yield from _row([titles[i] for i in shown], shape, bottom=True)
        yield Text("─" * (sum(wide + len(_GAP) for wide in shape) - len(_GAP)))
        for block in table.blocks:
            yield Text(clean(block.title), style="cyan")
            for row in block.rows:
                label, *values = (_lines(cell) for cell in cell_texts(row))
                whole = [_folded(label[0], console, widths[0]), *values]
                yield from _row([whole[i] for i in shown], shape)
            yield Text()


def _row(cells: Sequence[Sequence[Text]], widths: Sequence[int], bottom: bool = False) -> Iterator[Text]:
    """Print cells of several lines beside each other, the first to the left, numbers to the right."""
    height = max(map(len, cells))
    for n in range(height):
        line = Text(no_wrap=True, overflow="ignore")
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            place = n - (height - len(cell)) if bottom else n
            text = cell[place] if 0 <= place < len(cell) else Text()
            space = " " * (width - text.cell_len)
            line.append_text(Text.assemble(_GAP, space, text) if i else Text.assemble(text, space))
        line.rstrip()
        yield line


def _lines(cell: CellText) -> list[Text]:
    """Lines of a place; the first stands out where it is no score."""
    style = "yellow" if cell.notes and not cell.below else ""
    first = Text.assemble((cell.text, style), (marks(cell.notes), "yellow"))
    return [first, Text(cell.below, style="dim")] if cell.below else [first]


def _folded(text: Text, console: Console, width: int) -> list[Text]:
    """Break a text into lines of a width, between words where that can be."""
    return list(text.wrap(console, max(1, width))) or [Text()]


def _title_width(name: str) -> int:
    """Columns that a title takes: all of a short one, else its longest word, within bounds."""
    longest = max(map(cell_len, name.split()), default=0)
    return cell_len(name) if cell_len(name) <= MOST_TITLE else min(max(longest, MOST_TITLE), 2 * MOST_TITLE)


def _width(lines: Sequence[Text]) -> int:
    return max(line.cell_len for line in lines)
