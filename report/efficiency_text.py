"""Efficiency tables as Markdown, CSV, JSON, and for a terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as Grid
from rich.text import Text

from vtpbench.pruners.errors import UserError, did_you_mean
from vtpbench.report.efficiency import EfficiencyRow, EfficiencyTable, Spread, milliseconds
from vtpbench.report.layout import NONE, clean, share
from vtpbench.report.markdown import escape

NAMES = 2
"""Columns that say which row it is; a narrow terminal shows them beside every group of others."""
GAP = 2
"""Between columns on a terminal."""
COLUMNS: dict[str, Callable[[EfficiencyRow], str]] = {
    "Pruner": lambda row: row.pruner,
    "Budget": lambda row: row.budget,
    "Tokens": lambda row: _number(row.tokens, 1),
    "TFLOPs": lambda row: _significant(row.exact_tflops),
    "TFLOPs (Table 4)": lambda row: _significant(row.table4_tflops),
    "pruner GFLOPs": lambda row: _significant(row.pruner_gflops),
    "vision ms": lambda row: _stage(row, "vision"),
    "pruner ms": lambda row: _stage(row, "pruner"),
    "prefill ms": lambda row: _stage(row, "prefill"),
    "TTFT ms": lambda row: _timing(row.ttft_ms),
    "TTFT x": lambda row: _number(row.ttft_speedup, 2),
    "TPOT ms": lambda row: _timing(row.tpot_ms),
    "end to end ms": lambda row: _timing(row.total_ms),
    "end to end x": lambda row: _number(row.total_speedup, 2),
    "KV MiB": lambda row: _number(row.kv_mib, 1),
    "peak MiB": lambda row: "not measured" if row.status == "ok" and row.peak_mib is None else _number(row.peak_mib, 0),
    "accuracy %": lambda row: _number(row.accuracy, 1),
}


def grid(table: EfficiencyTable) -> list[list[str]]:
    """Write a table as lines of text, names first; accuracy is left out where none is known."""
    shown = [name for name in COLUMNS if name != "accuracy %" or any(row.accuracy is not None for row in table.rows)]
    return [shown, *([_cell(row, name) for name in shown] for row in table.rows)]


def facts(table: EfficiencyTable) -> tuple[tuple[str, str], ...]:
    """Say what stands below a table."""
    even = ", ".join(f"{pruner} {budget}" for pruner, budget in table.break_even.items())
    return (("break-even budget", f"largest with a TTFT below vanilla's: {even}"),) * bool(even) + table.footer


def _cell(row: EfficiencyRow, name: str) -> str:
    return row.status if row.status != "ok" and name == "Tokens" else COLUMNS[name](row)


def _stage(row: EfficiencyRow, stage: str) -> str:
    return _timing(None if row.stages_ms is None else row.stages_ms[stage])


def _timing(value: Spread | None) -> str:
    return NONE if value is None else f"{milliseconds(value.median)} ({milliseconds(value.iqr)})"


def _number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def _significant(value: float | None) -> str:
    return NONE if value is None else f"{value:.4g}"


def _markdown(tables: Sequence[EfficiencyTable]) -> str:
    parts = []
    for table in tables:
        lines = grid(table)
        widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(lines[0]))]
        rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        text = [[escape(cell).rjust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
        parts += [f"## {escape(table.title)}", "", *(f"| {' | '.join(line)} |" for line in [text[0], rule, *text[1:]]), ""]
        parts += [f"- {escape(note)}" for note in table.notes]
        parts += [*(f"- **{name}:** {escape(fact)}" for name, fact in facts(table)), ""]
    return "\n".join(parts)


def as_dict(row: EfficiencyRow) -> dict[str, Any]:
    """Flatten a row for machines: a spread becomes three values."""
    flat: dict[str, Any] = {}
    for name, value in vars(row).items():
        for key, item in (value or {}).items() if name == "stages_ms" else [(name, value)]:
            long = f"{key}_ms" if name == "stages_ms" else key
            spreads = {"median": item.median, "iqr": item.iqr, "outliers": item.outliers} if isinstance(item, Spread) else None
            flat |= {long: item} if spreads is None else {f"{long}_{part}": each for part, each in spreads.items()}
    return flat


def _csv(tables: Sequence[EfficiencyTable]) -> str:
    lines = [{"table": table.title, **as_dict(row)} for table in tables for row in table.rows]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(dict.fromkeys(name for line in lines for name in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _json(tables: Sequence[EfficiencyTable]) -> str:
    found = [
        {
            "title": table.title,
            "rows": [as_dict(row) for row in table.rows],
            "break_even": dict(table.break_even),
            "notes": list(table.notes),
            "footer": dict(table.footer),
        }
        for table in tables
    ]
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Sequence[EfficiencyTable]], str]] = {"markdown": _markdown, "csv": _csv, "json": _json}


def render(tables: Sequence[EfficiencyTable], format_name: str) -> str:
    """Print tables as text that ends with a newline; raises `UserError` for an unknown format."""
    if format_name not in FORMATS:
        raise UserError(f"unknown format '{format_name}'; {did_you_mean(format_name, FORMATS)}")
    return FORMATS[format_name](tables)


@dataclass(frozen=True)
class EfficiencyTerminal:
    """Tables as something that a rich console prints; one that is too narrow gets the columns in several grids."""

    tables: Sequence[EfficiencyTable]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay the tables out for the width at hand."""
        for table in self.tables:
            yield Text(clean(table.title), style="bold")
            yield from _grids(grid(table), options.max_width)
            yield from (Text(clean(note), style="yellow") for note in table.notes)
            yield from (Text.assemble((f"{name}: ", "bold"), (clean(fact), "dim")) for name, fact in facts(table))
            yield Text()


def _grids(lines: Sequence[Sequence[str]], width: int) -> Iterator[Grid]:
    widths = [max(cell_len(clean(line[i])) for line in lines) for i in range(len(lines[0]))]
    for group in share(widths, width, GAP, NAMES):
        shown = Grid.grid(padding=(0, GAP, 0, 0))
        for i in group:
            shown.add_column(justify="left" if i < NAMES else "right", no_wrap=True)
        for n, line in enumerate(lines):
            shown.add_row(*(Text(clean(line[i]), style="" if n else "bold") for i in group))
        yield shown
