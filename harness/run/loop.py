"""The run loop: every missing cell becomes a record, whatever happens inside it."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from vtpbench.harness.host.files import StorageError
from vtpbench.harness.host.libraries import output_to
from vtpbench.harness.host.stopping import StopRequest
from vtpbench.harness.records.cell import Cell, Journal
from vtpbench.harness.records.outcome import Outcome, Swept
from vtpbench.harness.records.record import Environment, ModelInfo, Record
from vtpbench.harness.records.store import Store
from vtpbench.harness.run.attempt import attempt, record_of
from vtpbench.harness.run.pictures import PictureFolder
from vtpbench.harness.run.progress import Progress
from vtpbench.harness.run.summary import CellVisit, Summary
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    from vtpbench.harness.suite.benchmarks import Benchmark


class CellEngine(Protocol):
    """One loaded model that answers the questions of any of its cells."""

    def sweep(
        self,
        cells: Sequence[Cell],
        benchmark: Benchmark,
        journal: Callable[[Cell], Journal],
        progress: Callable[[int, int], None],
        picture_folder: PictureFolder,
        log: Callable[[Cell], AbstractContextManager[None]],
    ) -> Mapping[str, Swept]:
        """Answer the questions of several cells of one benchmark together, as far as that goes; what that cost, by cell id."""
        ...

    def run(
        self,
        cell: Cell,
        benchmark: Benchmark,
        journal: Journal,
        progress: Callable[[int, int], None],
        picture_folder: PictureFolder,
        swept: Swept | None = None,
    ) -> Outcome:
        """Answer and score a cell; `progress(done, total)` counts samples, first those the journal knew, then each batch.

        `swept` is what those have cost that `sweep` has answered.
        """
        ...


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

    """

    suite: str
    store: Store
    open_engine: Callable[[ModelInfo], CellEngine]
    benchmarks: Mapping[str, Benchmark]
    environment: Environment
    progress: Progress
    pictures: int = 0
    stop: StopRequest = field(default_factory=StopRequest)

    def advance(self, done: int, total: int) -> None:
        """Count answers behind each batch that is written; raises `TimeIsUp` where the run is to stop."""
        self.progress.advance(done, total)
        self.stop.check()


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
    todo = _by_model(store.missing(cells))
    for label in dict.fromkeys(cell.benchmark.label for cell in todo):
        fetch(setting.benchmarks[label])
    worker = _CellRunner(setting, todo)
    with setting.progress:
        setting.progress.start(todo)
        busy = [cell for cells in grouped_by_benchmark(todo) for cell in worker.visit(cells)]
        if busy:
            setting.progress.note(f"waiting for {len(busy)} cells that another run is working on")
        for cell in busy:
            worker.visit([cell], wait=True)
    return Summary(tuple(worker.visits), len(cells) - len(todo), perf_counter() - start, store.folder)


class _CellRunner:
    """Visits cells with at most one model in memory."""

    def __init__(self, setting: RunContext, cells: Iterable[Cell]) -> None:
        self.visits: list[CellVisit] = []
        self._setting = setting
        self._before = {cell.id: setting.store.read(cell.id) for cell in cells}
        self._model: ModelInfo | None = None
        self._engine: CellEngine | Outcome | None = None

    def visit(self, cells: Sequence[Cell], wait: bool = False) -> list[Cell]:
        """Measure cells of one model and benchmark unless somebody else has done so meanwhile.

        Returns those that another live run is at.
        """
        store, busy, mine = self._setting.store, list[Cell](), list[Cell]()
        with ExitStack() as leases:
            for cell in cells:
                if not leases.enter_context(store.lease(cell, wait)):
                    busy.append(cell)
                    continue
                now = store.read(cell.id)
                if now is not None and (store.is_whole(now) or now != self._before[cell.id]):
                    self.visits.append(CellVisit(cell, now, elsewhere=True))
                    self._setting.progress.skip(cell)
                else:
                    mine.append(cell)
            for cell in mine:
                store.forget_log(cell.id)
            spent = self._sweep(mine) if len(mine) > 1 else {}
            for cell in mine:
                self.visits.append(CellVisit(cell, self._measure(cell, spent.get(cell.id))))
        return busy

    def _log(self, cell: Cell) -> AbstractContextManager[None]:
        """Keep what is said while something is done for a cell, behind what was said before."""
        return output_to(self._setting.store.log_path(cell.id), append=True)

    def _sweep(self, cells: Sequence[Cell]) -> Mapping[str, Swept]:
        """Answer the questions of cells of one model and benchmark in one pass; whatever goes wrong, each says by itself.

        Returns what that has cost each, by its id.
        """
        setting, store, first = self._setting, self._setting.store, cells[0]
        with self._log(first):
            engine = self._open(first.model)
        if isinstance(engine, Outcome):
            return {}
        benchmark, picture_folder = setting.benchmarks[first.benchmark.label], PictureFolder(store.folder, setting.pictures)
        setting.progress.begin_sweep(cells)

        def work() -> Mapping[str, Swept]:
            return engine.sweep(cells, benchmark, store.journal, setting.advance, picture_folder, self._log)

        with output_to(store.log_path(f"sweep-{first.id}")):
            spent = attempt(work, StorageError, f"{first.model.label} / {first.benchmark.label}")
        return {} if isinstance(spent, Outcome) else spent

    def _measure(self, cell: Cell, swept: Swept | None = None) -> Record:
        """Score a cell, and ask what is left to ask; `swept` is what a sweep has spent on it."""
        self._setting.progress.begin(cell)
        with self._log(cell):
            engine = self._open(cell.model)
            start = perf_counter()
            outcome = engine if isinstance(engine, Outcome) else self._answer(engine, cell, swept)
        wall_s = perf_counter() - start + (swept.seconds if swept else 0.0)
        record = record_of(cell, outcome, self._setting.suite, self._setting.environment, wall_s)
        self._setting.store.add(record)
        self._setting.progress.end(cell, record)
        return record

    def _open(self, model: ModelInfo) -> CellEngine | Outcome:
        """Load a model; one that cannot be loaded fails all its cells at once.

        The user's mistake ends the run as long as nothing has been measured in it: whoever started it is still there.
        """
        if self._engine is None or model != self._model:
            self._model, self._engine = model, None
            gc.collect()  # modules and their hooks refer to each other; the old model must go before the new one comes
            fatal = UserError if all(visit.elsewhere for visit in self.visits) else StorageError
            self._engine = attempt(lambda: self._setting.open_engine(model), fatal, f"model '{model.label}'")
        return self._engine

    def _answer(self, engine: CellEngine, cell: Cell, swept: Swept | None) -> Outcome:
        setting, store = self._setting, self._setting.store
        benchmark, picture_folder = setting.benchmarks[cell.benchmark.label], PictureFolder(store.folder, setting.pictures)

        def work() -> Outcome:
            outcome = engine.run(cell, benchmark, store.journal(cell), setting.advance, picture_folder, swept)
            table = store.save_samples(cell.id, outcome.samples) if outcome.samples else None
            return dataclasses.replace(outcome, samples_sha256=table)

        return attempt(work, StorageError, cell)


def _by_model(cells: Iterable[Cell]) -> tuple[Cell, ...]:
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
