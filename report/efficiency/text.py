"""Efficiency tables as Markdown, CSV, JSON, and for a terminal; LaTeX has a file of its own."""

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

from vtpbench.harness.records.efficiency import STAGES
from vtpbench.pruners.errors import UserError, did_you_mean
from vtpbench.report.efficiency.columns import amounts, columns, facts
from vtpbench.report.efficiency.latex import latex
from vtpbench.report.efficiency.row import EfficiencyRow, Spread
from vtpbench.report.efficiency.table import EfficiencyTable
from vtpbench.report.formats.markdown import escape, pipe_table
from vtpbench.report.formats.render import OTHERS
from vtpbench.report.tables.layout import clean, share

NAMES = 2
"""Columns that say which row it is; a narrow terminal shows them beside every group of others."""
GAP = 2
"""Between columns on a terminal."""
SPREADS = ("ttft_ms", "tpot_ms", "total_ms")
"""Fields of a row that hold repeated values, beside the stages."""


def grid(table: EfficiencyTable) -> list[list[str]]:
    """Write a table as lines of text, names first."""
    shown = columns(table)
    lines = [["Pruner", "Budget", *(f"{column.name} {column.unit}".strip() for column in shown)]]
    for row in table.rows:
        lines.append([row.pruner, row.budget, *(f"{at.text} {at.below}".strip() for at in amounts(row, shown))])
    return lines


def _markdown(tables: Sequence[EfficiencyTable]) -> str:
    parts = []
    for table in tables:
        names, *rows = [[escape(cell) for cell in line] for line in grid(table)]
        parts += [f"## {escape(table.title)}", "", *pipe_table(names, rows), ""]
        parts += [f"- {escape(note)}" for note in table.notes]
        parts += [*(f"- **{name}:** {escape(fact)}" for name, fact in facts(table)), ""]
    return "\n".join(parts)


def as_dict(row: EfficiencyRow) -> dict[str, Any]:
    """Flatten a row for machines: a spread becomes three values; every row has the same fields."""
    flat: dict[str, Any] = {}
    for name, value in vars(row).items():
        if name == "stages_ms":
            for stage in STAGES:
                flat |= _flat(f"{stage}_ms", None if value is None else value[stage])
        elif name in ("device_ms", "launches"):
            flat |= {f"{stage}_{name}": None if value is None else value[stage] for stage in STAGES}
        elif name in ("bound", "decode_bound"):
            shares = {} if value is None else vars(value)
            flat[name] = None if value is None else value.by
            flat |= {f"{name}_{share}": shares.get(share) for share in ("busy", "compute", "memory")}
        else:
            flat |= _flat(name, value) if name in SPREADS else {name: value}
    return flat


def _flat(name: str, value: Spread | None) -> dict[str, float | None]:
    return {f"{name}_{part}": None if value is None else getattr(value, part) for part in ("median", "iqr", "outliers")}


def _csv(tables: Sequence[EfficiencyTable]) -> str:
    lines = [{"table": table.title, **table.conditions, **as_dict(row)} for table in tables for row in table.rows]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def as_objects(tables: Sequence[EfficiencyTable]) -> list[dict[str, Any]]:
    """Lay tables out for JSON; numbers are not rounded, what is not known is null."""
    return [
        {
            "title": table.title,
            "conditions": dict(table.conditions),
            "rows": [as_dict(row) for row in table.rows],
            "break_even": {pruner: vars(even) for pruner, even in table.break_even.items()},
            "device_break_even": {pruner: vars(even) for pruner, even in table.device_break_even.items()},
            "notes": list(table.notes),
            "footer": dict(table.footer),
        }
        for table in tables
    ]


def _json(tables: Sequence[EfficiencyTable]) -> str:
    return json.dumps(as_objects(tables), indent=1, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Sequence[EfficiencyTable]], str]] = {
    "markdown": _markdown,
    "latex": latex,
    "csv": _csv,
    "json": _json,
}


def render(tables: Sequence[EfficiencyTable], format_name: str) -> str:
    """Print tables as text that ends with a newline; raises `UserError` for an unknown format."""
    if format_name not in FORMATS:
        raise UserError(f"unknown format '{format_name}'; {did_you_mean(format_name, [*FORMATS, *OTHERS])}")
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
