"""How many answers of a run there are, how many are to come, and how fast they come: plain counting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from time import monotonic

RECENT_S = 300.0
"""Seconds over which speeds are taken."""


class Speed:
    """Answers a second of one worker, over the last minutes."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._recent: deque[tuple[float, float]] = deque()
        self.total = 0.0

    def begin(self) -> None:
        """Count time from now on, unless that is so already: what comes before an answer is part of its cost."""
        self._since = self._clock() if self._since is None else self._since

    def add(self, answers: float) -> None:
        """Count answers that have just come."""
        self.begin()
        self.total += answers
        self._recent.append((self._clock(), answers))

    def per_s(self) -> float | None:
        """Answers a second; None before the first."""
        now = self._clock()
        while self._recent and self._recent[0][0] < now - RECENT_S:
            self._recent.popleft()
        if not self.total or self._since is None:
            return None
        return sum(answers for _, answers in self._recent) / max(1e-6, min(RECENT_S, now - self._since))


class Tally:
    """Answers of the cells of a run.

    Parameters
    ----------
    expected : answers that each cell will have, by id; None = unknown
    there : that it has already, by id

    """

    def __init__(self, expected: Mapping[str, int | None], there: Mapping[str, int]) -> None:
        self._expected = dict(expected)
        self._there: dict[str, float] = {cell: there.get(cell, 0) for cell in expected}
        self.failed: dict[str, str] = {}
        self._ended: set[str] = set()

    def expect(self, cells: Iterable[str], each: int) -> None:
        """Learn how many answers cells will have."""
        self._expected.update((cell, each) for cell in cells if cell in self._there)

    def set(self, cell: str, answers: float) -> float:
        """Note how many answers a cell has now; gives how many are new."""
        new = answers - self._there[cell]
        self._there[cell] = answers
        return new

    def add(self, cell: str, answers: int) -> None:
        """Count further answers of a cell."""
        self._there[cell] += answers

    def end(self, cell: str) -> None:
        """Note that no answer of a cell is to come any more."""
        self._ended.add(cell)

    @property
    def ended(self) -> int:
        """Cells of which no answer is to come."""
        return len(self._ended)

    @property
    def there(self) -> int:
        """Answers of all cells."""
        return round(sum(self._there.values()))

    @property
    def left(self) -> int | None:
        """Answers that are to come; None while unknown. A cell of unknown size counts as the mean of the others."""
        open_cells = [cell for cell in self._expected if cell not in self._ended]
        known = [size for size in self._expected.values() if size is not None]
        if not known:
            return None if open_cells else 0
        sizes = {cell: self._expected[cell] for cell in open_cells}
        mean = sum(known) / len(known)
        left = (max(0.0, (mean if size is None else size) - self._there[cell]) for cell, size in sizes.items())
        return round(sum(left))
