"""Whose mistake it was: a pruner may be a stranger's and fail in any way, which is no defect of ours."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sysconfig import get_paths

from vtpbench.pruners.errors import UserError


def describe_failure(name: str, error: BaseException) -> str:
    """Say in one line that a pruner broke, and how to find out why."""
    what = f"{type(error).__name__}: {' '.join(str(error).split())}{failing_line(error)}"
    return f"pruner '{name}' broke with {what}; look into it with: vtpbench check {name}"


def failing_line(error: BaseException) -> str:
    """Say where an error comes from, the innermost line that is of no library; nothing where there is none."""
    libraries = (get_paths()["stdlib"], "<")
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename and not frame.filename.startswith(libraries)]
    return f", at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""


@contextmanager
def plugin_errors(name: str) -> Iterator[None]:
    """Turn what goes wrong in a pruner's code below into a `UserError` that names the pruner; what it says itself stays."""
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as e:  # a stranger's pruner may fail in any way, or end the program with success and no word
        raise UserError(describe_failure(name, e)) from e
