"""The errors that users can cause; everything else is a defect of ours."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something that the user can mend; the message names the fix, the command line prints it and exits with 2."""


class Infeasible(UserError):
    """A pruner cannot reach a budget; the cell is recorded as `infeasible` with this reason, never approximated."""


class Unsupported(UserError):
    """A pruner cannot act on a model (no CLS token, no trained checkpoint ...); the cell is recorded as `unsupported`."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Give the closing words of an error about an unknown name: the nearest valid name, or all of them."""
    names = sorted(known)
    near = get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names) or 'none'}"
