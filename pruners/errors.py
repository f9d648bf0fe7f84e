"""The errors that users can cause; everything else is a defect of ours."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar, Literal


class UserError(Exception):
    """Something that the user can mend; the message names the fix, the command line prints it and exits with 2."""


class BadOption(UserError):
    """A pruner's option that is unknown or has a value that it cannot have; `option` names it."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(message)
        self.option = option


class Impossible(UserError):
    """What a pruner cannot do, by its nature; the cell is recorded with `status` and this reason. Raise one of those below."""

    status: ClassVar[Literal["infeasible", "unsupported"]]


class Infeasible(Impossible):
    """A pruner cannot reach a budget; the cell is recorded as `infeasible` with this reason, never approximated."""

    status = "infeasible"


class Unsupported(Impossible):
    """A pruner cannot act on a model (no CLS token, no trained checkpoint ...); the cell is recorded as `unsupported`."""

    status = "unsupported"


def share(budget: int, tiles: int) -> int:
    """Give each tile of an image its part of a budget; raises `Infeasible` where the parts would differ."""
    if budget % tiles:
        raise Infeasible(f"a budget of {budget} cannot be shared equally by {tiles} tiles; use a multiple of {tiles}")
    return budget // tiles


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Give the closing words of an error about an unknown name: the nearest valid name, or all of them."""
    names = sorted(known)
    near = get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names) or 'none'}"
