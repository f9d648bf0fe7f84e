"""Sheets: tables of another form than the paper's, as Markdown to read and as rows for scripts."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass

from vtpbench.pruners.errors import UserError, did_you_mean
from vtpbench.report.formats.markdown import escape, pipe_table

Value = str | float | int | None


@dataclass(frozen=True)
class SheetTable:
    """One table of texts; a line of one text is a heading within it."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    facts: tuple[tuple[str, str], ...] = ()
    """Names and texts of what a reader must know."""
    text_columns: int = 1
    """Columns from the left that hold text; the others hold numbers."""


@dataclass(frozen=True)
class Sheet:
    """The same findings twice: laid out, and row by row."""

    grids: tuple[SheetTable, ...]
    fields: tuple[str, ...]
    rows: tuple[Mapping[str, Value], ...]


FORMATS = ("markdown", "csv", "json")


def render_sheet(sheet: Sheet, format_name: str) -> str:
    """Print a sheet as text that ends with a newline; rows are not rounded.

    Raises
    ------
    UserError
        The format is unknown, or one that only tables of results have.

    """
    if format_name not in FORMATS:
        raise UserError(f"this is not printed as '{format_name}'; {did_you_mean(format_name, FORMATS)}")
    if format_name == "markdown":
        return "\n".join(map(_markdown, sheet.grids))
    if format_name == "json":
        return json.dumps(sheet.rows, indent=1, ensure_ascii=False) + "\n"
    text = io.StringIO()
    writer = csv.DictWriter(text, sheet.fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sheet.rows)
    return text.getvalue()


def _markdown(grid: SheetTable) -> str:
    names, *lines = [[escape(text) for text in line] for line in (grid.columns, *grid.lines)]
    facts = [f"- **{escape(name)}:** {escape(fact)}" for name, fact in grid.facts]
    return "\n".join([f"## {escape(grid.title)}", "", *pipe_table(names, lines, grid.text_columns), "", *facts, ""])
