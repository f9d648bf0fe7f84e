"""What the driver of several workers tells those who look: from another shell, and at the progress display."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from time import monotonic

from vtpbench.harness.distribute.messages import (
    AnswersForgotten,
    AskPart,
    Event,
    Lost,
    MeasureCell,
    NewAnswers,
    Opened,
    OpenSweep,
    Ready,
    Work,
)
from vtpbench.harness.records.cell import Cell
from vtpbench.harness.run.progress import Progress
from vtpbench.harness.run.watch import RunWatch

SHOW_S = 1.0
"""Seconds between two looks at all workers for the display."""


class DriverWatch:
    """Counts what is sent to workers, and what they tell.

    Parameters
    ----------
    cells : of the run, by id
    watch : what another shell sees
    progress : what people see here

    """

    def __init__(self, cells: Mapping[str, Cell], watch: RunWatch, progress: Progress) -> None:
        self._cells, self._watch, self._progress = cells, watch, progress
        self._sweeps: dict[Hashable, tuple[str, ...]] = {}
        self._shown = 0.0

    def sent(self, worker: Hashable, work: Work) -> None:
        """Note what a worker is asked to do."""
        name = str(worker)
        if isinstance(work, OpenSweep):
            self._sweeps[worker] = work.cells
            self._watch.doing(name, f"opening {self._sweep_of(worker)}")
        elif isinstance(work, AskPart):
            part = work.part
            rows = f"{len(part.cells)} row" + "s" * (len(part.cells) > 1)
            what = f"{self._sweep_of(worker)}: questions {part.start} to {part.stop - 1}, {rows}"
            self._watch.doing(name, what, asking=True)
        elif isinstance(work, MeasureCell):
            self._watch.doing(name, f"scoring {self._cells[work.cell]}")

    def took(self, worker: Hashable, event: Event) -> None:
        """Note what a worker tells."""
        name = str(worker)
        if isinstance(event, Ready):
            self._watch.join(name, event.environment.device, event.node, event.pid)
        elif isinstance(event, Lost):
            self._watch.leave(name)
        elif isinstance(event, Opened):
            self._watch.expect(self._sweeps[worker], len(event.samples))
        elif isinstance(event, NewAnswers):
            self._watch.answered(name, event.cell, len(event.answers))
        elif isinstance(event, AnswersForgotten):
            self._watch.reset(event.cell)

    def idle(self, worker: Hashable) -> None:
        """Note that a worker has nothing to do."""
        self._watch.doing(str(worker), "waiting")

    def ended(self, cell: Cell, failure: str | None) -> None:
        """Note that a cell has its record."""
        self._watch.end(cell.id, str(cell), failure)

    def show(self) -> None:
        """Let the display say how all workers stand, now and then."""
        if monotonic() >= self._shown + SHOW_S:
            self._progress.workers(self._watch.state())
            self._shown = monotonic()

    def _sweep_of(self, worker: Hashable) -> str:
        first = self._cells[self._sweeps[worker][0]]
        return f"{first.model.label} / {first.benchmark.label}"
