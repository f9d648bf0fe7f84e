"""Whose mistake it was: a pruner may be a stranger's and fail in any way, which is no defect of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vtpbench.pruners.errors import UserError, failing_line, one_line


def describe_failure(name: str, error: BaseException) -> str:
    """Say in one line that a pruner broke, and how to find out why."""
    return f"pruner '{name}' broke with {one_line(error)}{failing_line(error)}; look into it with: vtpbench check {name}"


@contextmanager
def plugin_errors(name: str) -> Iterator[None]:
    """Turn what goes wrong in a pruner's code below into a `UserError` that names the pruner; what it says itself stays."""
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as e:  # a stranger's pruner may fail in any way, or end the program with success and no word
        raise UserError(describe_failure(name, e)) from e
