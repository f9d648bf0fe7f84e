"""The errors that users can cause; everything else is a defect of ours, or of a pruner: where that lies is found here, too."""

from __future__ import annotations

import traceback
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pathlib import Path
from sysconfig import get_paths
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


def one_line(error: BaseException) -> str:
    """Say what an error is, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def failing_line(error: BaseException, files: Collection[Path] = (), without: Path | None = None) -> str:
    """Say where an error comes from, to be added to what it is: `, at file.py:12`; nothing where that is not known.

    It is the innermost line of `files` or, where none are given, of what is no library, nor in the folder `without`.
    """
    frames, wanted = traceback.extract_tb(error.__traceback__), {file.resolve() for file in files}
    libraries = (get_paths()["stdlib"], "<", *([] if without is None else [str(without)]))
    own = [
        frame
        for frame in frames
        if Path(frame.filename).resolve() in wanted
        or not (wanted or "site-packages" in frame.filename or frame.filename.startswith(libraries))
    ]
    return f", at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
