"""One worker: a warm model on a device, which answers parts of sweeps and scores cells; it writes no result to disk."""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from threading import Thread
from time import perf_counter
from typing import TYPE_CHECKING, Any

from vtpbench.harness.distribute.messages import (
    AnswersForgotten,
    AskPart,
    CellMeasured,
    Closed,
    Event,
    Known,
    MeasureCell,
    NewAnswers,
    NewOutput,
    NewPicture,
    Opened,
    OpenSweep,
    PartDone,
    Ready,
    Work,
)
from vtpbench.harness.distribute.told_output import ToldOutput
from vtpbench.harness.host.device import DeviceLost, open_device, refuse_failed
from vtpbench.harness.records.cell import Answer, Cell
from vtpbench.harness.records.environment import environment
from vtpbench.harness.records.outcome import Outcome, Swept
from vtpbench.harness.records.record import ModelInfo
from vtpbench.harness.run.attempt import attempt
from vtpbench.harness.run.batch_size import WINDOW
from vtpbench.harness.run.engine import Engine, open_engine
from vtpbench.harness.run.job import RunOptions, make_job
from vtpbench.harness.run.pictures import PictureFolder
from vtpbench.harness.run.questions import Question
from vtpbench.harness.run.sweep import SweepShare

if TYPE_CHECKING:
    import torch


class Worker:
    """Plans a suite as the driver does, and does what that asks for, one thing at a time.

    Parameters
    ----------
    suite, options : as the command line has them
    device : as torch names it; None = the first GPU, else the CPU

    """

    def __init__(self, suite: str, options: RunOptions, device: str | None) -> None:
        self._job = make_job(suite, options, lambda line: None)
        self._device = open_device(device)
        self._cells = {cell.id: cell for cell in self._job.cells}
        self._model: ModelInfo | None = None
        self._engine: Engine | Outcome | None = None
        self._sweep: _RunningSweep | None = None
        self._scratch = TemporaryDirectory()
        self._pictures = PictureFolder(Path(self._scratch.name), self._job.suite.pictures)
        self._output = ToldOutput(Path(self._scratch.name) / "logs")

    def ready(self) -> Ready:
        """Say where this is, and what the suite is here."""
        return Ready(platform.node(), os.getpid(), environment(str(self._device)), frozenset(self._cells))

    def do(self, work: Work) -> Iterator[Event]:
        """Do one thing, and tell of it as it goes; raises `DeviceLost` where nothing more can be done here."""
        events: SimpleQueue[Event | BaseException | None] = SimpleQueue()
        if isinstance(work, MeasureCell):
            Thread(target=_telling, args=(events.put, self._measure, work, events), daemon=True).start()
        elif isinstance(work, OpenSweep):
            self._sweep = running = _RunningSweep(self._device, events)
            cells = [self._cells[cell_id] for cell_id in work.cells]
            Thread(target=_telling, args=(running.tell, self._open_sweep, cells, running), daemon=True).start()
        elif self._sweep is not None:
            self._sweep.events = events
            self._sweep.parts.put(work if isinstance(work, AskPart) else None)
        else:
            events.put(Closed())
        while (event := events.get()) is not None:
            yield from (NewOutput(*new) for new in self._output.new())
            if isinstance(event, BaseException):
                raise event
            if isinstance(event, NewAnswers):
                yield from self._new_pictures()
            yield event
            if isinstance(event, Opened | PartDone | Closed | CellMeasured):
                return

    def _measure(self, work: MeasureCell, events: SimpleQueue[Any]) -> None:
        cell, journal = self._cells[work.cell], _ToldJournal(work.cell, dict(work.known), events)
        start = perf_counter()

        def measure() -> Outcome:
            engine = self._open(cell.model)
            if isinstance(engine, Outcome):
                return engine
            benchmark = self._job.suite.benchmarks[cell.benchmark.label]
            return engine.run(cell, benchmark, journal, lambda done, total: None, self._pictures, work.swept)

        with self._output.kept(cell.id):
            outcome = attempt(measure, DeviceLost, cell)
        events.put(CellMeasured(cell.id, outcome, perf_counter() - start))

    def _open_sweep(self, cells: Sequence[Cell], running: _RunningSweep) -> None:
        """Answer parts of a sweep as they come; whatever goes wrong, its cells say by themselves when they are measured."""
        first = cells[0]

        def log(cell: Cell) -> AbstractContextManager[None]:
            return self._output.kept(cell.id)

        def sweep() -> None:
            with log(first):
                engine = self._open(first.model)
            if isinstance(engine, Outcome):
                return
            costs = engine.sweep(
                cells,
                self._job.suite.benchmarks[first.benchmark.label],
                running.journal,
                lambda done, total: None,
                self._pictures,
                log,
                partial(running.shares, WINDOW * self._job.suite.questions_together),
            )
            running.costs.update(costs)

        with self._output.kept(f"sweep-{first.id}"):
            attempt(sweep, DeviceLost, f"{first.model.label} / {first.benchmark.label}")
        self._sweep = None
        running.tell(Closed(running.costs))

    def _open(self, model: ModelInfo) -> Engine | Outcome:
        """Load a model, unless it is here."""
        if self._engine is None or model != self._model:
            self._model, self._engine = model, None
            gc.collect()
            described, size = self._job.models[model.label], self._job.suite.questions_together
            self._engine = attempt(lambda: open_engine(described, self._device, size), DeviceLost, f"model '{model.label}'")
        return self._engine

    def _new_pictures(self) -> Iterator[NewPicture]:
        """Hand on what was drawn since the last time."""
        for path in sorted(self._pictures.folder.glob("pictures/*.jpg")):
            if path.stat().st_size:
                yield NewPicture(path.stem, path.read_bytes())
                path.write_bytes(b"")  # it stays known, so that it is drawn once


def _telling(tell: Callable[[BaseException], None], work: Callable[..., None], *arguments: Any) -> None:
    """Do something in a thread of its own; what breaks there is raised where its events are read."""
    try:
        work(*arguments)
    except BaseException as e:
        tell(e)


@dataclass
class _RunningSweep:
    """A sweep that waits for its next part between two requests of the driver; each of them reads `events` of its own."""

    device: torch.device
    events: SimpleQueue[Any]
    parts: SimpleQueue[AskPart | None] = field(default_factory=SimpleQueue)
    known: Known = field(default_factory=dict)
    costs: dict[str, Swept] = field(default_factory=dict)

    def tell(self, event: Event | BaseException) -> None:
        """Tell whoever waits now."""
        self.events.put(event)

    def shares(self, window: int, questions: Sequence[Question]) -> Iterator[SweepShare]:
        """Give the parts as the driver asks for them; `window` questions share their pictures."""
        self.tell(Opened(tuple(question.sample for question in questions), window))
        while (asked := self.parts.get()) is not None:
            self.known = asked.known
            yield SweepShare(slice(asked.part.start, asked.part.stop), frozenset(asked.part.cells))
            refuse_failed(self.device)  # rows keep their errors to themselves: it would be through with all parts at once
            self.tell(PartDone())

    def journal(self, cell: Cell) -> _ToldJournal:
        """Give what is known of a cell's part, and where its answers go."""
        return _ToldJournal(cell.id, dict(self.known.get(cell.id, {})), self.events)


@dataclass
class _ToldJournal:
    """Answers go to the driver, which writes them; implements `vtpbench.harness.records.cell.Journal`."""

    cell_id: str
    answers: dict[str, Answer]
    events: SimpleQueue[Any]

    def known(self) -> dict[str, Answer]:
        """Answers that the driver has already."""
        return self.answers

    def add(self, answers: list[Answer]) -> None:
        """Tell a finished batch."""
        self.events.put(NewAnswers(self.cell_id, tuple(answers)))

    def remove(self) -> None:
        """Tell that the answers so far are worth nothing."""
        self.answers.clear()
        self.events.put(AnswersForgotten(self.cell_id))
