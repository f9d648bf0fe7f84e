"""Who does what next: parts of sweeps, then their cells, over workers that come, go and die. It knows neither Ray nor models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeAlias

from vtpbench.harness.distribute.messages import AskPart, CloseSweep, MeasureCell, OpenSweep, Work
from vtpbench.harness.distribute.parts import Part
from vtpbench.harness.distribute.shared_sweep import SharedSweep
from vtpbench.harness.records.cell import Answer
from vtpbench.harness.records.outcome import Swept

WorkerId: TypeAlias = Hashable
TRIES = 3
"""Times that a part or a cell may lose its worker, without an answer in between, before it is given up."""


@dataclass
class _Busy:
    """What a worker is at."""

    work: Work
    since: float
    told: dict[str, dict[str, Answer]] = field(default_factory=dict)
    """Answers of its part so far: should it die, they are known."""


class Scheduler:
    """Hands out work: cells to be measured first, so that tables fill early, then the longest sweep of the worker's model.

    Parameters
    ----------
    sweeps : all there is to do
    clock : gives seconds
    has_scorers : whether others than workers score: then these measure what others cannot, and the rest once all is asked

    """

    def __init__(self, sweeps: Iterable[SharedSweep], clock: Callable[[], float] = monotonic, has_scorers: bool = False) -> None:
        self._clock, self._has_scorers = clock, has_scorers
        self._scoring: set[str] = set()
        """Cells that others than workers are at."""
        self._refused: set[str] = set()
        """Those that they could not score."""
        self.sweeps = list(sweeps)
        self.failed: dict[str, str] = {}
        """Cells that are given up, with the reason; whoever records them takes them out."""
        self._of = {cell: sweep for sweep in self.sweeps for cell in sweep.cells}
        self._unmeasured = dict.fromkeys(self._of)
        self._open: dict[WorkerId, SharedSweep] = {}
        self._model: dict[WorkerId, str] = {}
        self._last: dict[WorkerId, Part] = {}
        """Of the open sweep."""
        self._busy: dict[WorkerId, _Busy] = {}
        self._shut: set[tuple[WorkerId, int]] = set()
        """Workers, and the sweeps that they could not open though others could."""
        self._tries: Counter[Hashable] = Counter()

    @property
    def finished(self) -> bool:
        """Whether every cell is measured or given up."""
        return not self._unmeasured and not self._busy

    def next(self, worker: WorkerId, workers: int = 1) -> Work | None:
        """Choose what an idle worker does, of so many; None = wait."""
        work = self._choose(worker, workers)
        if work is not None:
            self._busy[worker] = _Busy(work, self._clock())
        return work

    def _choose(self, worker: WorkerId, workers: int) -> Work | None:
        own = self._open.get(worker)
        if own is not None:
            if own.samples is None or not own.remaining:
                return CloseSweep()
            part = self._last[worker] = own.take(workers, self._last.get(worker))
            return AskPart(part, own.known_in(part))
        ready = self._ready()
        first = [cell for cell in ready if not self._has_scorers or self._needs_worker(cell)]
        return self._measure(worker, first) or self._open_sweep(worker) or self._measure(worker, ready)

    def _measure(self, worker: WorkerId, ready: Sequence[str]) -> Work | None:
        """Choose a cell to be scored, of the worker's model if there is one."""
        if not ready:
            return None
        cell = min(ready, key=lambda cell: self._of[cell].model != self._model.get(worker))
        sweep = self._of[cell]
        self._model[worker] = sweep.model
        return MeasureCell(cell, {}, sweep.costs.get(cell))  # whoever sends it fills in what is on disk

    def _open_sweep(self, worker: WorkerId) -> Work | None:
        """Choose a sweep to take part in."""
        model = self._model.get(worker)
        at = Counter(id(sweep) for sweep in self._open.values())
        waiting = [
            sweep for sweep in self.sweeps if sweep.remaining and not ((worker, id(sweep)) in self._shut and at[id(sweep)])
        ]
        if not waiting:
            return None
        chosen = min(waiting, key=lambda sweep: (sweep.model != model, -sweep.remaining / (1 + at[id(sweep)])))
        self._open[worker], self._model[worker] = chosen, chosen.model
        self._last.pop(worker, None)
        return OpenSweep(chosen.cells)

    def _ready(self) -> list[str]:
        """Cells whose sweep is through, and that nobody measures."""
        measuring = self._scoring | {busy.work.cell for busy in self._busy.values() if isinstance(busy.work, MeasureCell)}
        open_now = {id(sweep) for sweep in self._open.values()}
        through = [sweep for sweep in self.sweeps if not sweep.remaining and id(sweep) not in open_now]
        return [cell for sweep in through for cell in sweep.cells if cell in self._unmeasured and cell not in measuring]

    def next_to_score(self) -> tuple[str, Swept] | None:
        """Choose a cell that needs no worker, as its questions are answered; with what that has cost."""
        for cell in self._ready():
            if not self._needs_worker(cell):
                self._scoring.add(cell)
                return cell, self._of[cell].costs[cell]
        return None

    def _needs_worker(self, cell: str) -> bool:
        """Whether others cannot score a cell, or its questions were not asked together."""
        return cell in self._refused or cell not in self._of[cell].costs

    def scored(self, cell: str, done: bool) -> None:
        """Note that a cell has its outcome without a worker, or that one must measure it."""
        self._scoring.discard(cell)
        if done:
            self._unmeasured.pop(cell, None)
        else:
            self._refused.add(cell)

    def opened(self, worker: WorkerId, samples: Sequence[str], window: int) -> None:
        """Note that a worker has opened its sweep; those that died at it before did not die of it."""
        self._busy.pop(worker)
        self._tries.pop(self._open[worker].cells, None)
        self._open[worker].opened(samples, window)

    def answered(self, worker: WorkerId, cell: str, answers: Iterable[Answer]) -> None:
        """Note answers that a worker has told."""
        self._busy[worker].told.setdefault(cell, {}).update((answer.sample, answer) for answer in answers)

    def part_done(self, worker: WorkerId) -> None:
        """Note a finished part; what could not be answered there, its cells say when they are measured."""
        busy, sweep = self._busy.pop(worker), self._open[worker]
        assert isinstance(busy.work, AskPart), "only a part is done"
        sweep.speed = max(1, busy.work.asked) / max(1e-6, self._clock() - busy.since)

    def closed(self, worker: WorkerId, costs: Mapping[str, Swept]) -> None:
        """Note that a worker has left its sweep.

        Where it could not be opened, or broke in the middle, its cells are measured one by one and say why. One that others
        have opened, or are about to, is left to them.
        """
        busy, sweep = self._busy.pop(worker), self._open.pop(worker)
        if isinstance(busy.work, OpenSweep) and any(other is sweep for other in self._open.values()):
            self._shut.add((worker, id(sweep)))
        elif isinstance(busy.work, OpenSweep | AskPart):
            sweep.samples, sweep.left, sweep.returned = sweep.samples or (), [], []
        for cell, cost in costs.items():
            sweep.costs[cell] = sweep.costs[cell].with_more(cost) if cell in sweep.costs else cost

    def measured(self, worker: WorkerId, cell: str) -> None:
        """Note that a cell has its outcome."""
        self._busy.pop(worker)
        self._unmeasured.pop(cell, None)

    def lost(self, worker: WorkerId, reason: str) -> None:
        """Let another worker do what one was at that is gone, unless that has happened too often."""
        busy, sweep = self._busy.pop(worker, None), self._open.pop(worker, None)
        self._model.pop(worker, None)
        self._last.pop(worker, None)
        if busy is None:
            return
        if isinstance(busy.work, MeasureCell):
            cell = busy.work.cell
            if self._is_too_often(cell):
                self._give_up([cell], f"the worker that scored it died {TRIES} times: {reason}")
        elif isinstance(busy.work, AskPart) and sweep is not None:
            for cell, answers in busy.told.items():
                sweep.known[cell].update(answers)
            part = busy.work.part
            sweep.returned.append(part)
            if any(busy.told.values()):
                self._tries.pop((part.cells[0], part.start), None)  # whatever killed it, it gets on
            elif self._is_too_often((part.cells[0], part.start)):
                sweep.given_up = f"the worker that asked questions {part.start} to {part.stop - 1} died {TRIES} times: {reason}"
                self._give_up(sweep.cells, sweep.given_up)
        elif isinstance(busy.work, OpenSweep) and sweep is not None and self._is_too_often(sweep.cells):
            sweep.given_up = f"the worker that began with it died {TRIES} times: {reason}"
            self._give_up(sweep.cells, sweep.given_up)

    def _is_too_often(self, what: Hashable) -> bool:
        self._tries[what] += 1
        return self._tries[what] >= TRIES

    def _give_up(self, cells: Iterable[str], reason: str) -> None:
        for cell in cells:
            if cell in self._unmeasured:
                del self._unmeasured[cell]
                self.failed[cell] = reason
