"""`vtpbench report` and `vtpbench merge`: what has been measured, as tables."""

from __future__ import annotations

import sys
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vtpbench.harness.cli.report_sheets import AskedSheet
from vtpbench.harness.host.console import console, echo, warn
from vtpbench.harness.host.printable import printable
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vtpbench.harness.gather.sources import Sources
    from vtpbench.harness.records.efficiency import EfficiencyRecord
    from vtpbench.report.efficiency.table import EfficiencyTable
    from vtpbench.report.tables.table import Table

RESULTS = Path("results")
PICTURES = ("png", "svg", "pdf")
ENDINGS = {
    ".md": "markdown",
    ".csv": "csv",
    ".json": "json",
    ".tex": "latex",
    ".html": "html",
    ".htm": "html",
    ".png": "png",
    ".svg": "svg",
    ".pdf": "pdf",
}
"""What a file is to hold whose name ends so, where no format is asked for."""


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
        typer.Option(
            "--format",
            metavar="NAME",
            help="markdown, csv, json, latex, html; png, svg, pdf: a figure. By default what the ending of --out says, "
            "a table on a terminal, else markdown.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write here instead.")] = None,
    against: Annotated[str | None, typer.Option(metavar="paper", help="Lay the published figures beside the measured.")] = None,
    columns: Annotated[
        Columns | None,
        typer.Option(help="hard: only the samples that plain downsampling gets wrong; category: one column per ability."),
    ] = None,
    samples: Annotated[bool, typer.Option("--samples", help="Count the samples that a pruner breaks and mends.")] = False,
    between: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="ROW ROW", help="Compare two rows question by question, such as OC-VTP@64 VisionZip@64."),
    ] = None,
    margin: Annotated[
        str | None, typer.Option(metavar="PERCENT", help="Decide which rows are within so much of vanilla, such as 2%.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Row that every other is tested against; by default random.")
    ] = None,
    footer: Annotated[
        str | None, typer.Option(metavar="full|short|none", help="Detail below a table; by default full, in LaTeX short.")
    ] = None,
    mix: Annotated[bool, typer.Option("--mix", help="Show records that cannot be compared, in separate tables.")] = False,
) -> None:
    """Print the tables of what has been measured."""
    from vtpbench.harness.gather.sources import split
    from vtpbench.report.efficiency.table import build
    from vtpbench.report.published.published import PAPER
    from vtpbench.report.stats.build import build as build_accuracy

    format_ = format_ or (ENDINGS.get(out.suffix.lower()) if out else None)
    own = AskedSheet(against, samples, between, margin)
    if sum(map(bool, (*own.options.values(), columns))) > 1:
        raise UserError("--against, --columns, --samples, --between and --margin are reports of their own; give one of them")
    if footer and (own or format_ not in (None, "markdown", "latex")):
        raise UserError("--footer is for tables on a terminal, in markdown and in latex; leave it out here")
    asked = [name for name in sources or [str(RESULTS)] if name != PAPER]
    names, speed = split(asked, RESULTS, warn)
    if not names:
        _require_answers({**own.options, "--columns": columns, "--reference": reference}, bool(speed))
    tables, found = _tables(names, PAPER in (sources or ()), columns, reference, mix)
    if found is not None and own:
        from vtpbench.report.formats.sheet import render_sheet

        return _print(printable(render_sheet(own.sheet(tables, found), format_ or "markdown")), out)
    whole = tables if columns is None or found is None else build_accuracy(found.records)  # a part's scores are not the model's
    if format_ == "html":
        from vtpbench.report.html import html

        page = html(tables, found.samples, found.pictures, speed, whole) if found else html(tables, efficiency=speed)
        return _print(page, out)
    if format_ in PICTURES:
        return _print(_drawn(tables, speed, format_), out)
    efficiency: Sequence[EfficiencyTable] = build(speed, whole)
    shown = _with_footer(tables, footer or ("short" if format_ == "latex" else "full"))
    if format_ is None and out is None and (screen := console(sys.stdout)).is_terminal:
        from vtpbench.report.efficiency.text import EfficiencyTerminal
        from vtpbench.report.formats.terminal import Terminal

        return screen.print(Terminal(shown), EfficiencyTerminal(efficiency), sep="")
    if format_ == "csv" and tables and efficiency:
        shown, efficiency = _one_kind(shown, efficiency, named=len(names) < len(asked))
    _print(printable(_text(shown, efficiency, format_ or "markdown")), out)


def _require_answers(options: Mapping[str, object], speed: bool) -> None:
    """Refuse options that look at answers where the sources hold none; raises `UserError`."""
    option = next((name for name, value in options.items() if value), None)
    if option is not None:
        why = "efficiency records hold no answers" if speed else "published figures have no samples of their own"
        raise UserError(f"{option}: name a suite or a folder of results as well: {why}")


def _one_kind(
    tables: Sequence[Table], efficiency: Sequence[EfficiencyTable], *, named: bool
) -> tuple[Sequence[Table], Sequence[EfficiencyTable]]:
    """Leave out what a CSV cannot hold beside the other: answers where a source with efficiency alone was `named`."""
    if named:
        warn("answers are left out of csv, but for the column accuracy; name their source alone to get them")
        return (), efficiency
    warn("efficiency records are left out of csv; name their folder beside this source to get them, accuracy included")
    return tables, ()


def _drawn(tables: Sequence[Table], speed: Sequence[EfficiencyRecord], format_name: str) -> bytes:
    """Draw accuracy against tokens, and against time where it was measured; of efficiency records alone, time against tokens."""
    from vtpbench.report.efficiency.plot import plot
    from vtpbench.report.efficiency.table import build
    from vtpbench.report.html.costs import profiles
    from vtpbench.report.plots.accuracy import plot_accuracy

    return plot_accuracy(tables, profiles(speed, tables), format_name) if tables else plot(build(speed, ()), format_name)


def _with_footer(tables: Sequence[Table], detail: str) -> Sequence[Table]:
    from vtpbench.report.tables.footer import shorten

    return [replace(table, footer=shorten(table.footer, detail)) for table in tables]


def _text(tables: Sequence[Table], efficiency: Sequence[EfficiencyTable], format_name: str) -> str:
    from vtpbench.report.efficiency.together import together
    from vtpbench.report.formats.render import render

    if format_name != "markdown" or not tables:
        return together(tables, efficiency, format_name)
    text = render(tables, format_name) + _without_doubtful(tables)
    return f"{text}\n{together((), efficiency, format_name)}" if efficiency else text


def _without_doubtful(tables: Sequence[Table]) -> str:
    """Averages without the benchmarks whose vanilla figure is in doubt, where the tables have them."""
    from vtpbench.report.analyses.sensitivity import sensitivity
    from vtpbench.report.formats.sheet import render_sheet

    sheet = sensitivity(tables)
    return "\n" + render_sheet(sheet, "markdown") if sheet.grids else ""


def _tables(
    names: list[str], with_paper: bool, columns: Columns | None, reference: str | None, mix: bool
) -> tuple[tuple[Table, ...], Sources | None]:
    """Build the tables of the paper, and of what was found in suites and folders."""
    from vtpbench.harness.gather.sources import gather
    from vtpbench.report.analyses.columns import by_category, hard, part_tables
    from vtpbench.report.published.published import published
    from vtpbench.report.published.reprint import published_tables
    from vtpbench.report.stats.build import build
    from vtpbench.report.tables.conventions import REFERENCE
    from vtpbench.report.tables.settings import require_comparable

    tables = published_tables(published()) if with_paper else ()
    if not names:
        return tables, None
    found = gather(names, RESULTS, warn)
    if not mix:
        require_comparable(found.records)
    if columns is None:
        measured = build(found.records, found.benchmarks, found.pruners, found.samples, reference or REFERENCE)
    else:
        parts = (hard if columns is Columns.hard else by_category)(found.records, found.samples)
        measured = part_tables(parts, found.benchmarks, found.pruners, reference or REFERENCE)
    return (*tables, *measured), found


def merge_command(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="Folders of results from several machines.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder that gets everything; may hold results already.")],
) -> None:
    """Join folders of results; conflicting records are named, and nothing is then written."""
    from vtpbench.harness.gather.merge import merge

    for line in merge(results, out, warn).lines():
        echo(line)


def _print(content: str | bytes, out: Path | None) -> None:
    from vtpbench.harness.host.files import write_atomic

    data = content if isinstance(content, bytes) else content.encode()
    if out is not None:
        write_atomic(out, data)
    elif isinstance(content, str):
        echo(content, nl=False)
    elif sys.stdout.isatty():
        raise UserError("a picture does not go to a terminal; give a file: --out figure.png")
    else:
        sys.stdout.buffer.write(data)
