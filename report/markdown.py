"""Markdown: pipe tables that read well as text, and on a code-hosting site."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.cells import cell_len

from vtpbench.report.layout import Place, clean, header, marks, places
from vtpbench.report.table import Table

_SPECIAL = re.compile(r"[&<>|\\`$*~#\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")  # an underscore inside a word means nothing


def markdown(tables: Sequence[Table]) -> str:
    """Print all tables, with headings."""
    return "\n".join(_table(table) for table in tables)


def escape(text: str) -> str:
    """Make a text show as it is: what Markdown or HTML would take for its own becomes an entity."""
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", clean(text))


def _table(table: Table) -> str:
    names = [escape(name) for name in header(table)]
    lines: list[list[str]] = []
    for block in table.blocks:
        lines.append([f"**{escape(block.title)}**", *[""] * (len(names) - 1)])
        lines.extend([_place(place) for place in places(row)] for row in block.rows)
    widths = [max(3, *(cell_len(line[i]) for line in [names, *lines])) for i in range(len(names))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    text = [f"## {escape(table.title)}", "", *(_line(line, widths) for line in [names, rule, *lines]), ""]
    if table.notes:
        text += [*(f"{marks((i,))} {escape(note)}  " for i, note in enumerate(table.notes, 1)), ""]
    return "\n".join([*text, *(f"- **{escape(name)}:** {escape(fact)}" for name, fact in table.footer), ""])


def _place(place: Place) -> str:
    below = f"<br>{escape(place.below)}" if place.below else ""
    return f"{escape(place.text)}{marks(place.notes)}{below}"


def _line(values: Sequence[str], widths: Sequence[int]) -> str:
    padded = [" " * (width - cell_len(value)) for value, width in zip(values, widths, strict=True)]
    return f"| {values[0]}{padded[0]} | " + " | ".join(p + v for v, p in zip(values[1:], padded[1:], strict=True)) + " |"
