"""What the driver asks of a worker, and what that tells while it is at it: plain values, which travel between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from vtpbench.harness.distribute.parts import Part
from vtpbench.harness.records.cell import Answer
from vtpbench.harness.records.outcome import Outcome, Swept
from vtpbench.harness.records.record import Environment

Known: TypeAlias = Mapping[str, Mapping[str, Answer]]
"""Answers that are not to be asked again, by cell and sample."""


@dataclass(frozen=True)
class OpenSweep:
    """Load the model and the task of some cells, which differ in nothing else than pruner, budget and seed."""

    cells: tuple[str, ...]


@dataclass(frozen=True)
class AskPart:
    """Ask a part of the open sweep."""

    part: Part
    known: Known = field(default_factory=dict)

    @property
    def asked(self) -> int:
        """How many answers are to come of it."""
        return self.part.answers - sum(map(len, self.known.values()))


@dataclass(frozen=True)
class CloseSweep:
    """Be done with the open sweep."""


@dataclass(frozen=True)
class MeasureCell:
    """Score a cell, and ask what is left to ask."""

    cell: str
    known: Mapping[str, Answer]
    swept: Swept | None


Work: TypeAlias = OpenSweep | AskPart | CloseSweep | MeasureCell


@dataclass(frozen=True)
class Ready:
    """A worker has planned the suite on its own node, and waits for work."""

    node: str
    pid: int
    environment: Environment
    cells: frozenset[str]
    """Ids of all cells as it plans them: they differ where weights, data or versions do."""


@dataclass(frozen=True)
class Opened:
    """A sweep is open; its questions by their names, in their order."""

    samples: tuple[str, ...]
    window: int
    """Questions whose pictures are encoded together: parts are whole windows."""


@dataclass(frozen=True)
class NewPicture:
    """A picture that the answers behind it refer to."""

    name: str
    jpeg: bytes


@dataclass(frozen=True)
class NewOutput:
    """What was printed, warned and logged: whole lines, to be added to a log of the results."""

    log: str
    """Its name there: a cell's id, or that of a sweep."""
    lines: str


@dataclass(frozen=True)
class NewAnswers:
    """A finished batch of a cell."""

    cell: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class AnswersForgotten:
    """The answers of a cell so far are worth nothing: a picture has changed since."""

    cell: str


@dataclass(frozen=True)
class PartDone:
    """A part of the open sweep is finished, as far as that goes."""


@dataclass(frozen=True)
class Closed:
    """No sweep is open any more."""

    costs: Mapping[str, Swept] = field(default_factory=dict)
    """Of what was asked on this worker, by cell."""


@dataclass(frozen=True)
class CellMeasured:
    """A cell has its outcome; `wall_s` seconds after it was asked for."""

    cell: str
    outcome: Outcome
    wall_s: float


@dataclass(frozen=True)
class Lost:
    """A worker is gone."""

    reason: str


Event: TypeAlias = (
    Ready | Opened | NewPicture | NewOutput | NewAnswers | AnswersForgotten | PartDone | Closed | CellMeasured | Lost
)
