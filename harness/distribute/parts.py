"""A part of a sweep, which one worker answers at a time."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True)
class Part:
    """Whole windows of questions, of some of a sweep's cells."""

    start: int
    stop: int
    cells: tuple[str, ...]

    @property
    def answers(self) -> int:
        """How many it asks for."""
        return (self.stop - self.start) * len(self.cells)

    def cut(self, wanted: float, window: int) -> tuple[Part, list[Part]]:
        """Take about so many answers off, whole windows or, of one, some of its cells; what is left follows."""
        questions = min(window, self.stop - self.start)
        whole = questions * len(self.cells)
        end, rows = self.start + questions, len(self.cells)
        if wanted >= whole:
            end = min(self.stop, max(end, self.start + window * int(wanted / (window * rows))))
        else:
            rows = ceil(rows / min(rows, ceil(whole / wanted)))
        left = [Part(self.start, end, self.cells[rows:]), Part(end, self.stop, self.cells)]
        return Part(self.start, end, self.cells[:rows]), [part for part in left if part.answers]
