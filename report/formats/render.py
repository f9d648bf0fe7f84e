"""Formats by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vtpbench.pruners.errors import UserError, did_you_mean
from vtpbench.report.formats.data import as_csv, as_json
from vtpbench.report.formats.latex import latex
from vtpbench.report.formats.markdown import markdown
from vtpbench.report.tables.table import Table

FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {"markdown": markdown, "latex": latex, "csv": as_csv, "json": as_json}


OTHERS = ("html", "png", "svg", "pdf")
"""What other parts of the program write."""


def render(tables: Sequence[Table], format_name: str) -> str:
    """Print tables as text that ends with a newline.

    Raises
    ------
    UserError
        The format is unknown.

    """
    if format_name not in FORMATS:
        raise UserError(f"unknown format '{format_name}'; {did_you_mean(format_name, [*FORMATS, *OTHERS])}")
    return FORMATS[format_name](tables)
