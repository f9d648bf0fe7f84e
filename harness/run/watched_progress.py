"""The progress of a run in one process, as `RunWatch` counts it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vtpbench.harness.records.cell import Cell
from vtpbench.harness.records.record import Record
from vtpbench.harness.run.progress import Progress, headline, sweep_name
from vtpbench.harness.run.watch import RunWatch

HERE = "1"
"""Name of the one worker."""


class WatchedProgress:
    """Tells a display and a watch the same.

    Parameters
    ----------
    shown : what people see
    watch : what another shell sees
    device : name of the hardware

    """

    def __init__(self, shown: Progress, watch: RunWatch, device: str) -> None:
        self._shown, self._watch = shown, watch
        self._now: tuple[str, ...] = ()
        self._first = True
        watch.join(HERE, device)

    def note(self, text: str) -> None:
        """Show a line that stays."""
        self._shown.note(text)

    def start(self, cells: Iterable[Cell]) -> None:
        """Name the cells that the run will visit."""
        self._shown.start(cells)

    def begin_sweep(self, cells: Sequence[Cell]) -> None:
        """Start to answer the questions of cells of one model and benchmark together."""
        self._turn_to(cells, sweep_name(cells))
        self._shown.begin_sweep(cells)

    def begin(self, cell: Cell) -> None:
        """Start a cell."""
        self._turn_to([cell], str(cell))
        self._shown.begin(cell)

    def begin_scoring(self, cell: Cell) -> None:
        """Let a cell be scored beside what comes next."""
        self._shown.begin_scoring(cell)

    def wait_for_scores(self, cells: int) -> None:
        """Say that nothing is left but to score so many cells."""
        self._watch.doing(HERE, f"scoring {cells} cells")
        self._shown.wait_for_scores(cells)

    def advance(self, done: int, total: int) -> None:
        """Count samples: first those that an earlier attempt answered, then after each batch."""
        if self._first:
            self._watch.expect(self._now, total // len(self._now))
        self._watch.reached(HERE, self._now, done / len(self._now), known=self._first)
        self._first = False
        self._shown.advance(done, total)

    def end(self, cell: Cell, record: Record) -> None:
        """Finish a cell."""
        self._watch.end(cell.id, str(cell), headline(record.reason) if record.status == "failed" else None)
        self._shown.end(cell, record)

    def skip(self, cell: Cell) -> None:
        """Leave out a cell that another run has finished meanwhile."""
        self._watch.end(cell.id, str(cell))
        self._shown.skip(cell)

    def _turn_to(self, cells: Sequence[Cell], what: str) -> None:
        self._now, self._first = tuple(cell.id for cell in cells), True
        self._watch.doing(HERE, what)
