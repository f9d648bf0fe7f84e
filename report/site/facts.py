"""What a site is told beside records: what methods are, and where records come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Check = Literal["answers", "results", "means", "none", "whole", "faulty"]
CHECKS: dict[Check, str] = {
    "faulty": "NOT SOUND",
    "none": "not scored again",
    "means": "mean of its samples",
    "results": "from results",
    "answers": "from answers",
    "whole": "no score",
}
"""What `vtpbench verify` found of a cell, in words, the worst first."""


@dataclass(frozen=True)
class Origin:
    """Where a record lies, as it was named; `check` is None where nobody looked."""

    folder: str
    check: Check | None = None


@dataclass(frozen=True)
class Method:
    """A pruner.

    Attributes
    ----------
    name : registered name, or that of its class
    title : as people call it
    about : paragraphs on what it does and on its source
    facts : names and texts: where it acts, its options, its source
    year, venue, acts_at, question : as `vtpbench list pruners` has them

    """

    name: str
    title: str
    about: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    year: int | None = None
    venue: str = ""
    acts_at: str = ""
    question: str = ""
