"""`vtpbench report` and `vtpbench merge`: what has been measured, as tables."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vtpbench.harness.console import console, warn
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vtpbench.harness.sources import Sources
    from vtpbench.report.sheet import Sheet
    from vtpbench.report.table import Table

RESULTS = Path("results")


class Columns(str, Enum):
    """Which samples make up a column."""

    hard = "hard"
    category = "category"


def report_command(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SUITE|FOLDER|paper]...",
            help="Suites, folders of results, or the OC-VTP paper's published tables; by default everything under results.",
        ),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="markdown, csv, json, latex or html; by default a table on a terminal, else markdown."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write here instead.")] = None,
    against: Annotated[str | None, typer.Option(metavar="paper", help="Lay the published figures beside the measured.")] = None,
    columns: Annotated[
        Columns | None,
        typer.Option(help="hard: only the samples that plain downsampling gets wrong; category: one column per ability."),
    ] = None,
    samples: Annotated[bool, typer.Option("--samples", help="Count the samples that a pruner breaks and mends.")] = False,
    reference: Annotated[str, typer.Option(metavar="LABEL", help="Row that every other is tested against.")] = "random",
    mix: Annotated[bool, typer.Option("--mix", help="Show records that cannot be compared, in separate tables.")] = False,
) -> None:
    """Print the tables of what has been measured."""
    from vtpbench.report.html import html
    from vtpbench.report.published import PAPER
    from vtpbench.report.render import render
    from vtpbench.report.terminal import Terminal

    if sum((against is not None, columns is not None, samples)) > 1:
        raise UserError("--against, --columns and --samples are reports of their own; give one of them")
    names, speed = _sorted_out([name for name in sources or [str(RESULTS)] if name != PAPER])
    tables, found = _tables(names, PAPER in (sources or ()), columns, reference, mix)
    if against is not None or samples:
        from vtpbench.report.sheet import render_sheet

        if found is None:
            raise UserError("name a suite or a folder of results as well: published figures have no samples of their own")
        return _print(render_sheet(_compared(tables, against) if against else _flipped(found), format_ or "markdown"), out)
    if speed and found is None and not tables:
        return _print(_efficiency(speed, found, format_ or "markdown"), out)
    screen = console(sys.stdout)
    if format_ is None and out is None and screen.is_terminal:
        return screen.print(Terminal(tables))
    if format_ == "html":
        return _print(html(tables, found.samples if found else lambda record: None), out)
    text = render(tables, format_ or "markdown")
    if format_ in (None, "markdown"):
        text += _without_doubtful(tables) + ("\n" + _efficiency(speed, found, "markdown") if speed else "")
    _print(text, out)


def _sorted_out(names: list[str]) -> tuple[list[str], list[Path]]:
    """Split sources: those with answers, and folders with efficiency records; a folder may hold both."""
    from vtpbench.harness.efficiency.record import find_efficiency
    from vtpbench.harness.sources import stores

    speed = [Path(name) for name in names if Path(name).is_dir() and find_efficiency(Path(name), warn)]
    return [name for name in names if Path(name) not in speed or stores(Path(name))], speed


def _efficiency(folders: list[Path], found: Sources | None, format_name: str) -> str:
    """Print efficiency records, with relative accuracy beside where answers of the same model were found."""
    from vtpbench.harness.efficiency.printing import efficiency_tables

    records = found.records if found else ()
    return "\n".join(efficiency_tables(folder, warn, records, format_name) for folder in folders)


def _compared(tables: Sequence[Table], against: str) -> Sheet:
    """Lay published figures beside measured ones."""
    from vtpbench.report.against import compare
    from vtpbench.report.against_sheet import against_sheet
    from vtpbench.report.published import PAPER, published

    if against != PAPER:
        raise UserError(f"--against {against}: only 'paper', the tables of the OC-VTP paper, is known")
    return against_sheet(compare(tables, published()))


def _flipped(found: Sources) -> Sheet:
    """Count what pruners break and mend."""
    from vtpbench.report.flips import flips, flips_sheet

    return flips_sheet(flips(found.records, found.samples))


def _without_doubtful(tables: Sequence[Table]) -> str:
    """Averages without the benchmarks whose vanilla figure is in doubt, where the tables have them."""
    from vtpbench.report.sensitivity import sensitivity
    from vtpbench.report.sheet import render_sheet

    sheet = sensitivity(tables)
    return "\n" + render_sheet(sheet, "markdown") if sheet.grids else ""


def _tables(
    names: list[str], with_paper: bool, columns: Columns | None, reference: str, mix: bool
) -> tuple[tuple[Table, ...], Sources | None]:
    """Build the tables of the paper, and of what was found in suites and folders."""
    from vtpbench.harness.sources import gather
    from vtpbench.report.columns import by_category, hard, part_tables
    from vtpbench.report.published import published
    from vtpbench.report.reprint import published_tables
    from vtpbench.report.settings import require_comparable
    from vtpbench.report.table import build

    tables = published_tables(published()) if with_paper else ()
    if not names:
        return tables, None
    found = gather(names, RESULTS, warn)
    if not mix:
        require_comparable(found.records)
    if columns is None:
        measured = build(found.records, found.benchmarks, found.pruners, found.samples, reference)
    else:
        parts = (hard if columns is Columns.hard else by_category)(found.records, found.samples)
        measured = part_tables(parts, found.benchmarks, found.pruners, reference)
    return (*tables, *measured), found


def merge_command(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="Folders of results from several machines.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder that gets everything; may hold results already.")],
) -> None:
    """Join folders of results; conflicting records are named, and nothing is then written."""
    from vtpbench.harness.merge import merge

    for line in merge(results, out, warn).lines():
        typer.echo(line)


def _print(text: str, out: Path | None) -> None:
    from vtpbench.harness.files import write_atomic

    if out is None:
        typer.echo(text, nl=False)
    else:
        write_atomic(out, text.encode())
