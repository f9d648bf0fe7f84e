"""A sweep that several workers share: what is left of it, and how much of that is one part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vtpbench.harness.distribute.parts import Part
from vtpbench.harness.records.cell import Answer
from vtpbench.harness.records.outcome import Swept

PART_S = 60.0
"""Seconds that a part should take: what a worker's death may cost, and what is left to the others at the end."""


SHORTEST_S = 15.0
"""Seconds below which a part is not made shorter towards the end: each encodes its pictures anew."""
ROUNDS = 2
"""Parts for each worker that what is left of a sweep is cut into, so that all end together."""


@dataclass
class SharedSweep:
    """Cells of one model and benchmark, whose questions the workers share in parts.

    Attributes
    ----------
    cells : their ids
    model : which one answers; a worker that has it loaded comes first
    known : answers that are on disk, by cell and sample
    weight : how long it may take relative to the others, until its questions are known: rows x questions
    samples : of its questions, in their order, once a worker has opened it

    """

    cells: tuple[str, ...]
    model: str
    known: dict[str, dict[str, Answer]]
    weight: float
    samples: tuple[str, ...] | None = None
    window: int = 1
    left: list[Part] = field(default_factory=list)
    """What nobody is at."""
    returned: list[Part] = field(default_factory=list)
    """Parts whose worker has died. They come first: what kills workers is soon told, and kills no more of them."""
    costs: dict[str, Swept] = field(default_factory=dict)
    speed: float | None = None
    """Answers a second that one worker has given."""
    given_up: str | None = None

    @property
    def remaining(self) -> float:
        """Answers that nobody is at."""
        if self.given_up is not None:
            return 0
        return self.weight if self.samples is None else sum(part.answers for part in (*self.returned, *self.left))

    def opened(self, samples: Sequence[str], window: int) -> None:
        """Learn of the questions from the first worker that has read them; what all cells know is not asked again."""
        if self.samples is not None:
            return
        self.samples, self.window = tuple(samples), window
        runs: list[tuple[int, int]] = []
        for start in range(0, len(samples), window):
            stop = min(start + window, len(samples))
            if all(s in self.known[cell] for cell in self.cells for s in samples[start:stop]):
                continue
            if runs and runs[-1][1] == start:
                runs[-1] = runs[-1][0], stop
            else:
                runs.append((start, stop))
        self.left = [Part(start, stop, self.cells) for start, stop in runs]

    def take(self, workers: int, last: Part | None = None) -> Part:
        """Give the next part away: of about a minute, less towards the end, so that all workers finish together.

        A worker gets further rows of the window that it had `last`, whose pictures it has decoded; else it begins one that
        nobody is at, and only when there is none left, it helps with another's. Until the first part is done nobody knows how
        long that is: then it is one window of one cell, the least there is.
        """
        if self.returned:
            return self.returned.pop(0)
        share = self.remaining / (ROUNDS * workers)
        held = None if last is None else last.start
        first = max(self.left, key=lambda part: (part.start == held, len(part.cells)))
        at = self.left.index(first)
        wanted = float(self.window)
        if self.speed is not None:
            wanted = min(PART_S * self.speed, max(share, SHORTEST_S * self.speed))
        part, rest = first.cut(wanted, self.window)
        self.left[at : at + 1] = rest
        return part

    def known_in(self, part: Part) -> dict[str, dict[str, Answer]]:
        """Answers that need not be told again in a part."""
        assert self.samples is not None, "parts are taken of a sweep that is open"
        names = self.samples[part.start : part.stop]
        known = {cell: self.known[cell] for cell in part.cells}
        return {cell: {name: answers[name] for name in names if name in answers} for cell, answers in known.items()}
