"""The command line: parse, call one function, print. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vtpbench.harness.cli.arguments import BatchSize, Dtype, Limit, Only, Out, Set, SuiteName
from vtpbench.harness.cli.profile import profile_command
from vtpbench.harness.cli.report import RESULTS, merge_command, report_command
from vtpbench.harness.cli.run import run_command
from vtpbench.harness.cli.show import show_command
from vtpbench.harness.cli.site import site_command
from vtpbench.harness.cli.status import status_command
from vtpbench.harness.cli.train import train_app
from vtpbench.harness.cli.verify import verify_command
from vtpbench.harness.host.console import echo, print_grid, print_table, say, terminal_width, warn
from vtpbench.harness.host.stopping import INTERRUPTED, TimeIsUp
from vtpbench.pruners.errors import UserError, failing_line

USER_ERROR, STOPPED = 2, 75
"""Exit codes; 75 is what the system headers call a temporary failure: try again."""
KEPT = "what is finished is kept; run the same command again to go on"
KEPT_BY = {"profile": "models that were finished have their records; of the one being measured nothing is kept"}
"""What an interruption leaves of the commands that cannot go on where they were."""


Misuse: Any = typer.BadParameter.__base__
"""Any mistake in how a command is called; typer has a public name for this kind alone."""


class CommandGroup(TyperGroup):
    """The one place where a user's mistake becomes a line and an exit code."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Read what comes before the command."""
        try:
            return super().make_context(*args, **extra)
        except Misuse as e:
            raise _said(e) from e

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List commands with the whole first line of their help, however narrow the terminal."""
        for command in self.commands.values():
            command.short_help = command.short_help or (command.help or "").partition("\n")[0]
        super().format_commands(ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except Misuse as e:
            raise _said(e) from e
        except UserError as e:
            say("error", str(e), "red")
            raise typer.Exit(USER_ERROR) from e
        except OSError as e:  # a file or folder that is no such thing, or may not be read
            say("error", f"{e.filename}: {e.strerror}" if e.filename and e.strerror else str(e), "red")
            raise typer.Exit(USER_ERROR) from e
        except SystemExit as e:  # no command of ours ends so
            say("error", f"somebody else's code ended the program with {e.code!r}{failing_line(e)}", "red")
            raise typer.Exit(USER_ERROR) from e
        except TimeIsUp as e:
            say("stopped", KEPT, "yellow")
            raise typer.Exit(STOPPED) from e
        except KeyboardInterrupt as e:
            say("stopped", KEPT_BY.get(ctx.invoked_subcommand or "", KEPT), "yellow")
            raise typer.Exit(INTERRUPTED) from e


def _said(mistake: Any) -> Exception:
    """Say in one line how a command was called wrong; gives what to raise."""
    if type(mistake).show is not Misuse.show:  # no mistake, but help: nothing at all was given
        return mistake  # type: ignore[no-any-return] # typed loosely, see `Misuse`
    path = mistake.ctx.command_path if mistake.ctx else "vtpbench"
    say("error", f"{mistake.format_message().replace('Value error, ', '').rstrip('.')}; see `{path} --help`", "red")
    return typer.Exit(USER_ERROR)


app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: loading rich would take longer than everything else here
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 130},
    help="Fair, repeatable comparisons of vision token pruning.",
)


class Kind(str, Enum):
    """What `list` lists."""

    pruners = "pruners"
    models = "models"
    benchmarks = "benchmarks"
    suites = "suites"


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        from vtpbench import __version__

        echo(f"vtpbench {__version__}")
        raise typer.Exit


app.command("run")(run_command)


@app.command("plan")
def plan_command(
    suite: SuiteName,
    only: Only = None,
    set_: Set = None,
    limit: Limit = None,
    batch_size: BatchSize = None,
    dtype: Dtype = None,
    out: Out = RESULTS,
    gpu: Annotated[
        str | None, typer.Option(metavar="KIND", help="Estimate hours and memory on one GPU: h100, a100, l40s.")
    ] = None,
) -> None:
    """Show the cells of a suite: done, missing or impossible, with questions and tokens; needs no model, data or network."""
    from vtpbench.harness.planning.outlook import show_plan
    from vtpbench.harness.run.job import RunOptions

    options = RunOptions(out, only or (), set_ or (), limit, batch_size, dtype)
    echo(show_plan(suite, options, warn, gpu, terminal_width()))


app.command("status")(status_command)
app.command("report")(report_command)
app.command("merge")(merge_command)
app.command("verify")(verify_command)
app.command("site")(site_command)
app.command("show")(show_command)
app.command("profile")(profile_command)


@app.command("data")
def data_command(
    suite: SuiteName,
    set_: Set = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Download what is missing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show which datasets and checkpoints of a suite are here, how large they are, and how to bring the rest."""
    from vtpbench.harness.suite import assets as datareport
    from vtpbench.harness.suite.suite import load

    found = load(suite, set_ or ())
    if fetch:
        datareport.fetch(found, echo)
    assets = datareport.examine(found)
    rows = datareport.rows(assets)
    if as_json:
        echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    if rows:
        _print_rows(rows)
    for line in datareport.advice(assets, suite):
        echo(line)


app.add_typer(train_app, name="train")


@app.command("check")
def check_command(
    pruner: Annotated[str | None, typer.Argument(metavar="[PRUNER]", help="Registered name, or path/to/file.py:Class.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Option of the pruner, as in a suite; may be repeated.")
    ] = None,
    family: Annotated[list[str] | None, typer.Option(help="Model family to judge it on, all by default; repeatable.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Judge a model family instead: its name, path/to/file.py:Class, or a checkpoint of it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Judge a pruner on tiny random models of every family, or a model family; exit code 1 if it breaks a rule."""
    from vtpbench.harness.cli.check import checked

    shown, ok = checked(pruner, option or (), family, model, as_json, terminal_width())
    echo(shown.rstrip())
    raise typer.Exit(0 if ok else 1)


@app.command("new-pruner")
def new_pruner_command(
    name: Annotated[str, typer.Argument(help="Name in suites, e.g. my-method.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to put the package's folder.")] = Path(),
) -> None:
    """Write a package with one pruner, ready to install and to check."""
    from vtpbench.harness.cli.new_pruner import new_pruner

    for path in new_pruner(name, out):
        echo(str(path))


@app.command("list")
def list_command(kind: Kind, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Show the pruners, model families or benchmarks that can stand in a suite, or the suites that come along."""
    from vtpbench.harness.cli import listing

    items = listing.LISTS[kind.value]()
    if as_json:
        echo(json.dumps(items, indent=1, ensure_ascii=False))
    else:
        _print_rows([{key: item[key] for key in listing.BRIEF.get(kind.value, item)} for item in items])


@app.command("doctor")
def doctor_command(
    out: Out = RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Check versions, devices, caches and known-bad combinations; exit code 1 if something is broken."""
    from vtpbench.harness.cli.doctor import as_dicts, examine

    findings = examine(out)
    if as_json:
        echo(json.dumps(as_dicts(findings), indent=1, ensure_ascii=False))
    else:
        print_grid([[f.status, f.topic, f.detail + (f"\nmend: {f.mend}" if f.mend else "")] for f in findings])
    raise typer.Exit(1 if any(finding.status == "broken" for finding in findings) else 0)


def _print_rows(rows: list[dict[str, Any]]) -> None:
    print_table([list(rows[0]), *(["" if value is None else str(value) for value in row.values()] for row in rows)])
