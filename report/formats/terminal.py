"""The same tables for a terminal, by rich; one that is too narrow gets the columns in several tables, never cut numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from vtpbench.report.tables.layout import CellText, cell_texts, clean, header, marks, share
from vtpbench.report.tables.table import Table

_GAP = "  "


@dataclass(frozen=True)
class Terminal:
    """Tables as something that a rich console prints."""

    tables: Sequence[Table]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay the tables out for the width at hand."""
        for table in self.tables:
            yield Text(clean(table.title), style="bold")
            yield from _grids(table, options.max_width)
            yield from (Text.assemble((marks((i,)), "yellow"), " ", clean(note)) for i, note in enumerate(table.notes, 1))
            yield from [Text()] if table.notes else []
            yield from (Text.assemble((f"{clean(name)}: ", "bold"), (clean(fact), "dim")) for name, fact in table.footer)
            yield Text()


def _grids(table: Table, width: int) -> Iterator[Text]:
    names = header(table)
    rows = [cell_texts(row) for block in table.blocks for row in block.rows]
    widths = [max(_text(cell).cell_len for cell in [CellText(name), *(row[i] for row in rows)]) for i, name in enumerate(names)]
    for shown in share(widths, width, len(_GAP), names=1):
        yield Text()
        yield _line([Text(names[i], style="bold") for i in shown], [widths[i] for i in shown])
        yield Text("─" * (sum(widths[i] + len(_GAP) for i in shown) - len(_GAP)))
        for block in table.blocks:
            yield Text(clean(block.title), style="cyan")
            for row in block.rows:
                cells = [cell_texts(row)[i] for i in shown]
                yield _line([_text(cell) for cell in cells], [widths[i] for i in shown])
                if any(cell.below for cell in cells):
                    yield _line([Text(cell.below, style="dim") for cell in cells], [widths[i] for i in shown])
            yield Text()


def _line(cells: Sequence[Text], widths: Sequence[int]) -> Text:
    line = Text(no_wrap=True, overflow="ignore")
    for i, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        space = " " * (width - cell.cell_len)
        line.append_text(Text.assemble(_GAP, space, cell) if i else Text.assemble(cell, space))
    line.rstrip()
    return line


def _text(place: CellText) -> Text:
    """First line of a place; one without a score stands out."""
    style = "yellow" if place.notes and not place.below else ""
    return Text.assemble((place.text, style), (marks(place.notes), "yellow"))
