"""`vtpbench status`: how runs stand, from another shell."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from vtpbench.harness.host.console import console, echo, warn


def status_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Results of a suite, or of several.")],
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show how runs into a folder stand: what is done, by which workers, how fast, what failed, and when it ends."""
    from vtpbench.harness.gather.status import examine
    from vtpbench.harness.gather.status_text import status_lines

    found = examine(folder, warn)
    if as_json:
        echo(json.dumps([status.as_dict() for status in found], indent=1, ensure_ascii=False))
    else:
        echo("\n".join(status_lines(found, console(sys.stdout).width)))
