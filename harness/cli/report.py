"""`vtpbench report` and `vtpbench merge`: what has been measured, as tables."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vtpbench.harness.host.console import console, echo, warn
from vtpbench.harness.host.printable import printable
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vtpbench.harness.gather.sources import Sources
    from vtpbench.report.efficiency.table import EfficiencyTable
    from vtpbench.report.formats.sheet import Sheet
    from vtpbench.report.tables.table import Table

RESULTS = Path("results")
ENDINGS = {
    ".md": "markdown",
    ".csv": "csv",
    ".json": "json",
    ".tex": "latex",
    ".html": "html",
    ".htm": "html",
    ".png": "png",
    ".svg": "svg",
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
            help="markdown, csv, json, latex, html; png, svg: efficiency plot. By default what the ending of --out says, "
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
    reference: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Row that every other is tested against; by default random.")
    ] = None,
    mix: Annotated[bool, typer.Option("--mix", help="Show records that cannot be compared, in separate tables.")] = False,
) -> None:
    """Print the tables of what has been measured."""
    from vtpbench.harness.gather.sources import split
    from vtpbench.report.efficiency.table import build
    from vtpbench.report.published.published import PAPER
    from vtpbench.report.stats.build import build as build_accuracy

    format_ = format_ or (ENDINGS.get(out.suffix.lower()) if out else None)
    if sum((against is not None, columns is not None, samples)) > 1:
        raise UserError("--against, --columns and --samples are reports of their own; give one of them")
    asked = [name for name in sources or [str(RESULTS)] if name != PAPER]
    names, speed = split(asked, RESULTS, warn)
    if not names:
        of_answers = {"--against": against, "--columns": columns, "--samples": samples, "--reference": reference}
        _require_answers(of_answers, bool(speed))
    tables, found = _tables(names, PAPER in (sources or ()), columns, reference, mix)
    if found is not None and (against is not None or samples):
        from vtpbench.report.formats.sheet import render_sheet

        sheet = _compared(tables, against) if against else _flipped(found)
        return _print(printable(render_sheet(sheet, format_ or "markdown")), out)
    whole = tables if columns is None or found is None else build_accuracy(found.records)  # a part's scores are not the model's
    if format_ == "html":
        from vtpbench.report.html import html

        page = html(tables, found.samples, found.pictures, speed, whole) if found else html(tables, efficiency=speed)
        return _print(page, out)
    efficiency = build(speed, whole)
    if format_ is None and out is None and (screen := console(sys.stdout)).is_terminal:
        from vtpbench.report.efficiency.text import EfficiencyTerminal
        from vtpbench.report.formats.terminal import Terminal

        return screen.print(Terminal(tables), EfficiencyTerminal(efficiency), sep="")
    if format_ == "csv" and tables and efficiency:
        _print(_written(*_one_kind(tables, efficiency, named=len(names) < len(asked)), format_), out)
    else:
        _print(_written(tables, efficiency, format_ or "markdown"), out)


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


def _written(tables: Sequence[Table], efficiency: Sequence[EfficiencyTable], format_name: str) -> str | bytes:
    """Write the tables of answers and of efficiency in a format; raises `UserError` where it has no place for either."""
    if format_name in ("png", "svg"):
        from vtpbench.report.efficiency.plot import plot

        if not efficiency:
            raise UserError(f"--format {format_name} draws efficiency records; measure some first: vtpbench profile efficiency")
        return plot(efficiency, "png" if format_name == "png" else "svg")
    return printable(_text(tables, efficiency, format_name))


def _text(tables: Sequence[Table], efficiency: Sequence[EfficiencyTable], format_name: str) -> str:
    from vtpbench.report.efficiency.together import together
    from vtpbench.report.formats.render import render

    if format_name != "markdown" or not tables:
        return together(tables, efficiency, format_name)
    text = render(tables, format_name) + _without_doubtful(tables)
    return f"{text}\n{together((), efficiency, format_name)}" if efficiency else text


def _compared(tables: Sequence[Table], against: str) -> Sheet:
    """Lay published figures beside measured ones."""
    from vtpbench.report.published.against import compare
    from vtpbench.report.published.against_sheet import against_sheet
    from vtpbench.report.published.published import PAPER, published

    if against != PAPER:
        raise UserError(f"--against {against}: only 'paper', the tables of the OC-VTP paper, is known")
    return against_sheet(compare(tables, published()))


def _flipped(found: Sources) -> Sheet:
    """Count what pruners break and mend."""
    from vtpbench.report.analyses.flips import flips, flips_sheet

    return flips_sheet(flips(found.records, found.samples))


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
        raise UserError("a picture does not go to a terminal; give a file: --out efficiency.png")
    else:
        sys.stdout.buffer.write(data)
