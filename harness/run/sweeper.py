"""One model in memory at a time, and the sweeps over its cells."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from vtpbench.harness.host.files import StorageError
from vtpbench.harness.host.libraries import output_to
from vtpbench.harness.records.cell import Cell, Journal
from vtpbench.harness.records.outcome import Outcome, Swept
from vtpbench.harness.records.record import ModelInfo
from vtpbench.harness.records.store import Store
from vtpbench.harness.run.attempt import attempt
from vtpbench.harness.run.pictures import PictureFolder
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    from vtpbench.harness.run.questions import Question
    from vtpbench.harness.run.sweep import SweepShare
    from vtpbench.harness.suite.benchmarks import Benchmark

Shares = Callable[[Sequence["Question"]], Iterable["SweepShare"]]


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
        shares: Shares = ...,
    ) -> Mapping[str, Swept]:
        """Answer the questions of several cells of one benchmark together, as far as that goes; what that cost, by cell id.

        `shares` is told all questions and says which to ask; by default all.
        """
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


class Sweeper:
    """Opens models, at most one at a time, and lets them answer the questions of many cells in one pass.

    Parameters
    ----------
    store : where logs go
    journal : where the answers of a cell go
    open_engine : loads a model; called once per model, when its first cell comes
    benchmarks : by label
    picture_folder : where pictures of questions go

    """

    def __init__(
        self,
        store: Store,
        journal: Callable[[Cell], Journal],
        open_engine: Callable[[ModelInfo], CellEngine],
        benchmarks: Mapping[str, Benchmark],
        picture_folder: PictureFolder,
    ) -> None:
        self._store, self._journal, self._open_engine, self._benchmarks = store, journal, open_engine, benchmarks
        self.picture_folder = picture_folder
        self._model: ModelInfo | None = None
        self._engine: CellEngine | Outcome | None = None

    def log(self, cell: Cell) -> AbstractContextManager[None]:
        """Keep what is said while something is done for a cell, behind what was said before."""
        return output_to(self._store.log_path(cell.id), append=True)

    def open(self, cell: Cell, fatal: type[UserError]) -> CellEngine | Outcome:
        """Load the model of a cell unless it is here; one that cannot be loaded is an outcome for all its cells.

        `fatal` is the mistake that is raised instead.
        """
        model = cell.model
        if self._engine is None or model != self._model:
            self._model, self._engine = model, None
            gc.collect()  # modules and their hooks refer to each other; the old model must go before the new one comes
            with self.log(cell):
                self._engine = attempt(lambda: self._open_engine(model), fatal, f"model '{model.label}'")
        return self._engine

    def sweep(
        self,
        engine: CellEngine,
        cells: Sequence[Cell],
        advance: Callable[[int, int], None],
        shares: Shares | None = None,
    ) -> Mapping[str, Swept] | Outcome:
        """Answer the questions of cells of one model and benchmark in one pass; what that has cost each, by its id.

        An outcome says why not all could be asked. `advance` counts answers behind each batch that is written.
        """
        first = cells[0]
        benchmark, chosen = self._benchmarks[first.benchmark.label], {} if shares is None else {"shares": shares}

        def work() -> Mapping[str, Swept]:
            return engine.sweep(cells, benchmark, self._journal, advance, self.picture_folder, self.log, **chosen)

        with output_to(self._store.log_path(f"sweep-{first.id}")):
            return attempt(work, StorageError, f"{first.model.label} / {first.benchmark.label}")
