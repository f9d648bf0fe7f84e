"""`vtpbench verify`: whether results are sound, such as those that somebody offers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vtpbench.harness.host.console import echo
from vtpbench.harness.host.printable import one_line


def verify_command(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Results of a suite, or of several.")],
    suite: Annotated[
        list[str] | None,
        typer.Option(metavar="SUITE", help="Suite whose benchmarks are to be known, too; runs their code; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Score results again from their answers, and check hashes, counts and budgets; exit code 1 if something is wrong."""
    from vtpbench.harness.verify.folder import require_results, verify
    from vtpbench.harness.verify.scores import Scorers

    scorers = Scorers(suite or ())
    found = [verify(place, scorers) for place in require_results(folders)]
    if as_json:
        echo(json.dumps([verdict.as_dict() for verdict in found], indent=1, ensure_ascii=False))
    else:
        for verdict in found:
            for line in verdict.lines():
                echo(one_line(line))
    raise typer.Exit(0 if all(verdict.sound for verdict in found) else 1)
