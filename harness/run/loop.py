"""The run loop: every missing cell becomes a record, whatever happens inside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from vtpbench.harness.host.files import StorageError
from vtpbench.harness.host.stopping import StopRequest
from vtpbench.harness.records.cell import Cell
from vtpbench.harness.records.journal import FileJournal
from vtpbench.harness.records.outcome import Outcome, Swept
from vtpbench.harness.records.record import Environment, ModelInfo
from vtpbench.harness.records.store import Store
from vtpbench.harness.run.attempt import attempt, record_of
from vtpbench.harness.run.pictures import PictureFolder
from vtpbench.harness.run.progress import Progress
from vtpbench.harness.run.scoring_process import ScoredCell, ScoringProcesses
from vtpbench.harness.run.summary import CellVisit, Summary
from vtpbench.harness.run.sweeper import CellEngine, Sweeper
from vtpbench.harness.run.watch import RunWatch, questions_of
from vtpbench.harness.run.watched_progress import WatchedProgress
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    from vtpbench.harness.suite.benchmarks import Benchmark

LOOK_S = 1.0
"""Seconds between two looks at whether a run is to stop, while there is nothing else to do."""


@dataclass(frozen=True)
class RunContext:
    """Everything that a run needs beside its cells.

    Attributes
    ----------
    suite : name that records carry
    open_engine : loads a model; called once per model, when its first missing cell comes
    benchmarks : by label
    pictures : questions of each benchmark whose kept tokens are kept, too
    stop : whether to stop behind the next batch
    scorers : score what a sweep has answered while the device is busy with the next; None = it waits

    """

    suite: str
    store: Store
    open_engine: Callable[[ModelInfo], CellEngine]
    benchmarks: Mapping[str, Benchmark]
    environment: Environment
    progress: Progress
    pictures: int = 0
    stop: StopRequest = field(default_factory=StopRequest)
    scorers: ScoringProcesses | None = None

    def sweeper(self) -> Sweeper:
        """Give what opens models and lets them answer."""
        pictures = PictureFolder(self.store.folder, self.pictures)
        return Sweeper(self.store, self.journal, self.open_engine, self.benchmarks, pictures)

    def journal(self, cell: Cell) -> FileJournal:
        """Give where the answers of a cell go that come from this device."""
        return self.store.journal(cell, self.environment.device_kind)


def run(cells: Sequence[Cell], setting: RunContext) -> Summary:
    """Measure the cells that have no record yet, one model after the other.

    Raises `UserError` before anything is measured where the folder cannot be written, data are missing or the first model
    cannot be opened, and at any time where the disk refuses. Of a later model that cannot be opened the cells fail.
    """
    from vtpbench.harness.suite.task_data import fetch

    start = perf_counter()
    store = setting.store
    store.prepare()
    store.clear()
    todo = by_model(store.missing(cells))
    for label in dict.fromkeys(cell.benchmark.label for cell in todo):
        fetch(setting.benchmarks[label])
    store.refuse_other_device(todo, setting.environment.device_kind)
    there = {cell.id: store.kept_answers(cell.id) for cell in todo}
    watch = RunWatch(store.folder, questions_of(todo, setting.benchmarks), there)
    progress = WatchedProgress(setting.progress, watch, setting.environment.device)
    with setting.progress, watch, ExitStack() as leases, setting.scorers or nullcontext():
        worker = _CellRunner(setting, progress, todo, leases)
        progress.start(todo)
        busy = [cell for cells in grouped_by_benchmark(todo) for cell in worker.visit(cells)]
        worker.settle(wait_for_all=True)
        if busy:
            progress.note(f"waiting for {len(busy)} cells that another run is working on")
        for cell in busy:
            worker.visit([cell], wait=True)
    return Summary(tuple(worker.visits), len(cells) - len(todo), perf_counter() - start, store.folder)


@dataclass(frozen=True)
class _Scoring:
    """A cell that is being scored by another process; its `lease` is held until it has its record."""

    cell: Cell
    swept: Swept
    lease: ExitStack
    found: Future[ScoredCell | None]

    @property
    def has_failed(self) -> bool:
        """Whether it is to be measured here."""
        return self.found.done() and self.found.result() is None


class _CellRunner:
    """Visits cells with at most one model in memory; their `leases` end with the run, if not before."""

    def __init__(self, setting: RunContext, progress: WatchedProgress, cells: Iterable[Cell], leases: ExitStack) -> None:
        self.visits: list[CellVisit] = []
        self._leases = leases
        self._scoring: list[_Scoring] = []
        self._told = False
        self._setting, self._progress = setting, progress
        self._before = {cell.id: setting.store.read(cell.id) for cell in cells}
        self._sweeper = setting.sweeper()

    def visit(self, cells: Sequence[Cell], wait: bool = False) -> list[Cell]:
        """Measure cells of one model and benchmark unless somebody else has done so meanwhile.

        Returns those that another live run is at.
        """
        self.settle(wait_for_all=bool(self._scoring) and self._scoring[0].cell.model != cells[0].model)
        store, busy, mine = self._setting.store, list[Cell](), list[tuple[Cell, ExitStack]]()
        for cell in cells:
            lease = self._leases.enter_context(ExitStack())
            if not lease.enter_context(store.lease(cell, wait)):
                busy.append(cell)
                continue
            now = store.read(cell.id)
            if now is not None and (store.is_whole(now) or now != self._before[cell.id]):
                lease.close()
                self.visits.append(CellVisit(cell, now, elsewhere=True))
                self._progress.skip(cell)
            else:
                mine.append((cell, lease))
        for cell, _ in mine:
            store.forget_log(cell.id)
        together = [cell for cell, _ in mine]
        spent = self._sweep(together) if len(mine) > 1 else {}  # whatever goes wrong there, each cell says by itself
        scorers = self._setting.scorers
        if scorers is not None and scorers.gave_up and not self._told:
            self._progress.note("processes that score beside the device die: cells are scored one after the other, as it waits")
            self._told = True
        for cell, lease in mine:
            swept = spent.get(cell.id)
            if swept is None or scorers is None or scorers.gave_up:
                self._measure(cell, lease, swept)
            else:
                self._progress.begin_scoring(cell)
                self._scoring.append(_Scoring(cell, swept, lease, scorers.score(cell, swept)))
        return busy

    def settle(self, wait_for_all: bool = False) -> None:
        """Record the cells that other processes have scored by now, and measure those that they could not score.

        To have them all, those are scored here as well that no process has begun with.
        """
        while True:
            self._take_scored()
            left = reversed(self._scoring)
            mine = next((one for one in left if one.has_failed or (wait_for_all and one.found.cancel())), None)
            if mine is not None:
                self._scoring.remove(mine)
                self._measure(mine.cell, mine.lease, mine.swept)
            elif wait_for_all and self._scoring:
                self._progress.wait_for_scores(len(self._scoring))
                wait([one.found for one in self._scoring], LOOK_S, FIRST_COMPLETED)
                self._setting.stop.check()
            else:
                return

    def _take_scored(self) -> None:
        for one in [one for one in self._scoring if one.found.done()]:
            scored = one.found.result()
            if scored is not None:
                self._scoring.remove(one)
                self._record(one.cell, one.lease, scored.outcome, scored.wall_s)

    def _advance(self, done: int, total: int) -> None:
        """Count answers behind each batch that is written; raises `TimeIsUp` where the run is to stop."""
        self._progress.advance(done, total)
        self._take_scored()
        self._setting.stop.check()

    def _sweep(self, cells: Sequence[Cell]) -> Mapping[str, Swept]:
        engine = self._sweeper.open(cells[0], self._fatal)
        if isinstance(engine, Outcome):
            return {}
        self._progress.begin_sweep(cells)
        spent = self._sweeper.sweep(engine, cells, self._advance)
        return {} if isinstance(spent, Outcome) else spent

    def _measure(self, cell: Cell, lease: ExitStack, swept: Swept | None) -> None:
        """Score a cell, and ask what is left to ask; `swept` is what a sweep has spent on it."""
        self._progress.begin(cell)
        engine, start = self._sweeper.open(cell, self._fatal), perf_counter()
        with self._sweeper.log(cell):
            outcome = engine if isinstance(engine, Outcome) else self._answer(engine, cell, swept)
        self._record(cell, lease, outcome, perf_counter() - start + (swept.seconds if swept else 0.0))

    def _record(self, cell: Cell, lease: ExitStack, outcome: Outcome, wall_s: float) -> None:
        record = record_of(cell, outcome, self._setting.suite, self._setting.environment, wall_s)
        self._setting.store.add(record)
        self.visits.append(CellVisit(cell, record))
        lease.close()
        self._progress.end(cell, record)

    @property
    def _fatal(self) -> type[UserError]:
        """Mistake that ends the run as a model is opened: any while nothing is measured; whoever started it is still there."""
        return UserError if all(visit.elsewhere for visit in self.visits) else StorageError

    def _answer(self, engine: CellEngine, cell: Cell, swept: Swept | None) -> Outcome:
        store, benchmark = self._setting.store, self._setting.benchmarks[cell.benchmark.label]

        def work() -> Outcome:
            pictures = self._sweeper.picture_folder
            outcome = engine.run(cell, benchmark, self._setting.journal(cell), self._advance, pictures, swept)
            table = store.save_samples(cell.id, outcome.samples) if outcome.samples else None
            return dataclasses.replace(outcome, samples_sha256=table)

        return attempt(work, StorageError, cell)


def by_model(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Group cells by model, models in the order in which they first appear, so that each is loaded once."""
    return tuple(cell for group in _grouped(cells, lambda cell: cell.model) for cell in group)


def grouped_by_benchmark(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells of one model and benchmark together, in the order in which they first appear."""
    return _grouped(cells, lambda cell: (cell.model.model_dump_json(), cell.benchmark.model_dump_json()))


def _grouped(cells: Iterable[Cell], key: Callable[[Cell], Hashable]) -> list[list[Cell]]:
    groups: dict[Hashable, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    return list(groups.values())
