"""The command line: parse, call one function, print. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from vtpbench.harness.cli_train import train_app
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

USER_ERROR, INTERRUPTED = 2, 130
RESULTS = Path("results")
WIDTH_ELSEWHERE = 200
"""Columns where the output is no terminal."""


class Group(TyperGroup):
    """The one place where a user's mistake becomes a line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except UserError as e:
            _say("error", str(e), "red")
            raise typer.Exit(USER_ERROR) from e
        except KeyboardInterrupt as e:
            _say("stopped", "what is finished is kept; run the same command again to go on", "yellow")
            raise typer.Exit(INTERRUPTED) from e


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fair, repeatable comparisons of vision token pruning.",
)
app.add_typer(train_app, name="train")


class Kind(str, Enum):
    """What `list` lists."""

    pruners = "pruners"
    models = "models"
    benchmarks = "benchmarks"


SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="A YAML file, or the name of a suite that comes along: demo.")]
Only = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Cells to take: model, pruner, budget, benchmark or seed; may be repeated."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace what the suite says, e.g. limit=50; may be repeated."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first questions of each benchmark.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Questions answered together.")]
Dtype = Annotated[str | None, typer.Option(help="Number format of the weights: float32, bfloat16 or float16.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda:1 ...; by default the first GPU, else the CPU.")]
Out = Annotated[Path, typer.Option(help="Folder for results; each suite has its own inside.")]


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        from vtpbench import __version__

        typer.echo(f"vtpbench {__version__}")
        raise typer.Exit


@app.command("run")
def run_command(
    suite: SuiteName,
    only: Only = None,
    set_: Set = None,
    limit: Limit = None,
    batch_size: BatchSize = None,
    dtype: Dtype = None,
    device: Device = None,
    out: Out = RESULTS,
) -> None:
    """Measure what is missing of a suite; interrupt it and run it again as you like."""
    from vtpbench.harness.job import Choices, execute, make_job
    from vtpbench.harness.progress import make_progress

    job = make_job(suite, Choices(out, only or (), set_ or (), limit, batch_size, dtype), _warn)
    summary = execute(job, device, make_progress(_console(sys.stderr)))
    for line in summary.lines():
        typer.echo(line)
    raise typer.Exit(summary.exit_code)


@app.command("plan")
def plan_command(
    suite: SuiteName,
    only: Only = None,
    set_: Set = None,
    limit: Limit = None,
    batch_size: BatchSize = None,
    dtype: Dtype = None,
    out: Out = RESULTS,
) -> None:
    """Show the cells of a suite: done, missing or impossible, with tokens and an estimate of time."""
    from vtpbench.harness.job import Choices, make_job, show

    job = make_job(suite, Choices(out, only or (), set_ or (), limit, batch_size, dtype), _warn)
    typer.echo(show(job))


@app.command("report")
def report_command(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SUITE|FOLDER]...", help="Suites or folders of results; by default everything under results."),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="markdown, csv, json or latex; by default a table on a terminal and markdown elsewhere."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write here instead.")] = None,
) -> None:
    """Print the tables of what has been measured."""
    from vtpbench.harness.files import write_atomic
    from vtpbench.harness.sources import gather
    from vtpbench.report.render import render
    from vtpbench.report.table import build
    from vtpbench.report.terminal import Terminal

    found = gather(sources or [str(RESULTS)], RESULTS, _warn)
    tables = build(found.records, found.benchmarks, found.pruners)
    console = _console(sys.stdout)
    if format_ is None and out is None and console.is_terminal:
        console.print(Terminal(tables))
        return
    text = render(tables, format_ or "markdown")
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_atomic(out, text.encode())


@app.command("check")
def check_command(
    pruner: Annotated[str, typer.Argument(metavar="PRUNER", help="Registered name, or path/to/file.py:Class.")],
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Option of the pruner, as in a suite; may be repeated.")
    ] = None,
    family: Annotated[list[str] | None, typer.Option(help="Model family to judge it on, all by default; repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Judge a pruner on tiny random models of every family; exit code 1 if it breaks a rule."""
    from vtpbench.harness.check import check, render
    from vtpbench.harness.strict_yaml import read_options

    report = check(pruner, read_options(option or ()), family)
    typer.echo(render(report, "json" if as_json else "plain").rstrip())
    raise typer.Exit(0 if report.ok else 1)


@app.command("new-pruner")
def new_pruner_command(
    name: Annotated[str, typer.Argument(help="Name in suites, e.g. my-method.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to put the package's folder.")] = Path(),
) -> None:
    """Write a package with one pruner, ready to install and to check."""
    from vtpbench.harness.new_pruner import new_pruner

    for path in new_pruner(name, out):
        typer.echo(str(path))


@app.command("list")
def list_command(kind: Kind, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Show the pruners, model families or benchmarks that can stand in a suite."""
    from vtpbench.harness import listing

    items = {Kind.pruners: listing.pruners, Kind.models: listing.models, Kind.benchmarks: listing.benchmarks}[kind]()
    if as_json:
        typer.echo(json.dumps(items, indent=1, ensure_ascii=False))
    else:
        _print_grid([list(items[0]), *(["" if value is None else str(value) for value in item.values()] for item in items)])


@app.command("doctor")
def doctor_command(
    out: Out = RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Check versions, devices, caches and known-bad combinations; exit code 1 if something is broken."""
    from vtpbench.harness.doctor import as_dicts, examine

    findings = examine(out)
    if as_json:
        typer.echo(json.dumps(as_dicts(findings), indent=1, ensure_ascii=False))
    else:
        _print_grid([[f.status, f.topic, f.detail + (f"\nmend: {f.mend}" if f.mend else "")] for f in findings])
    raise typer.Exit(1 if any(finding.status == "broken" for finding in findings) else 0)


def _console(stream: Any) -> Console:
    """Console on a stream as it is now: the engine silences libraries by putting others in place of stdout and stderr."""
    from rich.console import Console

    return Console(file=stream, width=None if stream.isatty() else WIDTH_ELSEWHERE)


def _warn(line: str) -> None:
    _say("warning", line, "yellow")


def _say(word: str, line: str, color: str) -> None:
    typer.secho(f"vtpbench: {word}: ", fg=color, nl=False, err=True)  # plain where stderr is no terminal
    typer.echo(line, err=True)


def _print_grid(rows: list[list[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for row in rows:
        grid.add_row(*map(Text, row))
    _console(sys.stdout).print(grid)
