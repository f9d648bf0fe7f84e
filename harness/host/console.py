"""What commands say on a terminal and elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from vtpbench.harness.host.printable import printable
from vtpbench.harness.host.text_grid import text_grid, text_table

if TYPE_CHECKING:
    from rich.console import Console

WIDTH_ELSEWHERE = 200
"""Columns where the output is no terminal."""


def console(stream: Any) -> Console:
    """Console on a stream as it is now: the engine silences libraries by putting others in place of stdout and stderr."""
    from rich.console import Console

    return Console(file=stream, width=None if stream.isatty() else WIDTH_ELSEWHERE)


def terminal_width() -> int | None:
    """Columns of the terminal that is written to; None where it is none, and lines may be as long as they are."""
    return console(sys.stdout).width if sys.stdout.isatty() else None


def warn(line: str) -> None:
    """Print a warning to stderr."""
    say("warning", line, "yellow")


def say(word: str, line: str, color: str) -> None:
    """Print a line to stderr behind the program's name and a coloured word."""
    typer.secho(f"vtpbench: {word}: ", fg=color, nl=False, err=True)  # plain where stderr is no terminal
    echo(line.replace("\n", "\n  "), err=True)  # further lines are indented: none passes for a message of its own


def echo(text: str, *, nl: bool = True, err: bool = False) -> None:
    """Print text, made harmless for terminals; commands print in no other way."""
    typer.echo(printable(text), nl=nl, err=err)


def print_grid(rows: list[list[str]]) -> None:
    """Print rows of text in aligned columns, folded to the terminal."""
    echo("\n".join(text_grid(_harmless(rows), console(sys.stdout).width)))


def print_table(rows: list[list[str]]) -> None:
    """Print rows, of which the first names the columns, so that they fit the terminal."""
    echo("\n".join(text_table(_harmless(rows), console(sys.stdout).width)))


def _harmless(rows: list[list[str]]) -> list[list[str]]:
    return [[printable(cell) for cell in row] for row in rows]
