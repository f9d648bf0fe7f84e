"""The one writer of a distributed run: sends work to workers, and writes what they tell as a run on one device would."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, nullcontext
from time import perf_counter
from typing import Protocol

from vtpbench.harness.distribute.driver_watch import DriverWatch
from vtpbench.harness.distribute.messages import (
    AnswersForgotten,
    CellMeasured,
    Closed,
    Event,
    Lost,
    MeasureCell,
    NewAnswers,
    NewOutput,
    NewPicture,
    Opened,
    PartDone,
    Ready,
    Work,
)
from vtpbench.harness.distribute.scheduler import Scheduler
from vtpbench.harness.distribute.shared_sweep import SharedSweep
from vtpbench.harness.host.launcher import refuse_launcher
from vtpbench.harness.host.libraries import OutputFile
from vtpbench.harness.host.stopping import StopRequest
from vtpbench.harness.records.cell import Cell
from vtpbench.harness.records.journal import FileJournal
from vtpbench.harness.records.outcome import Outcome
from vtpbench.harness.records.record import Environment
from vtpbench.harness.run.answer_faults import trusted
from vtpbench.harness.run.attempt import record_of
from vtpbench.harness.run.job import Job
from vtpbench.harness.run.loop import grouped_by_benchmark
from vtpbench.harness.run.progress import Progress, headline
from vtpbench.harness.run.scoring_process import ScoredCell, ScoringProcesses
from vtpbench.harness.run.summary import CellVisit, Summary
from vtpbench.harness.run.watch import RunWatch, questions_of
from vtpbench.pruners.errors import UserError

LARGEST_UNKNOWN = 10_000
"""Questions that a benchmark counts as until it is opened, where nobody has said how many it has."""

WORKERS_A_SCORER = 4
"""A score takes about a sixth of an answer's time on an H200 (`benchmarks/scoring.py`); there is always one scorer more."""


class WorkerPool(Protocol):
    """Workers of any kind, each of which does one thing at a time."""

    def start(self, worker: Hashable, work: Work) -> None:
        """Let an idle worker do something."""
        ...

    def events(self) -> Iterable[tuple[Hashable, Event]]:
        """Wait a little for what workers tell; a new one begins with `Ready`, one that is gone ends with `Lost`.

        Raises `UserError` where no worker is left, and none can be had.
        """
        ...


def run_distributed(
    job: Job, progress: Progress, pool: WorkerPool, stop: StopRequest | None = None, scorers: ScoringProcesses | None = None
) -> Summary:
    """Measure the cells of a job that have no record yet on the workers of a pool; `scorers` score them beside.

    Raises `UserError` where a worker plans other cells, or runs on another kind of device than the first: their numbers would
    not belong into one table; `TimeIsUp` where `stop` says so.
    """
    from vtpbench.harness.suite.task_data import fetch

    refuse_launcher()
    start, store = perf_counter(), job.store
    store.prepare()
    store.clear()
    todo = store.missing(job.cells)
    for label in dict.fromkeys(cell.benchmark.label for cell in todo):
        fetch(job.suite.benchmarks[label])
    with ExitStack() as leases, progress, scorers or nullcontext():
        mine = [cell for cell in todo if leases.enter_context(store.lease(cell))]
        if len(mine) < len(todo):
            progress.note(f"{len(todo) - len(mine)} cells are left to another run that is working on them")
        progress.start(mine)
        there = {cell.id: store.kept_answers(cell.id) for cell in mine}
        watch = leases.enter_context(RunWatch(store.folder, questions_of(mine, job.suite.benchmarks), there))
        driver = _Driver(job, mine, progress, watch, pool, scorers)
        driver.run(stop or StopRequest())
    return Summary(tuple(driver.visits), len(job.cells) - len(todo), perf_counter() - start, store.folder)


class _Driver:
    def __init__(
        self,
        job: Job,
        cells: Sequence[Cell],
        progress: Progress,
        watch: RunWatch,
        pool: WorkerPool,
        scorers: ScoringProcesses | None,
    ) -> None:
        self.visits: list[CellVisit] = []
        self._job, self._store, self._progress, self._pool = job, job.store, progress, pool
        self._planned = frozenset(cell.id for cell in job.cells)
        self._cells = {cell.id: cell for cell in cells}
        self._watch = DriverWatch(self._cells, watch, progress)
        self._journals: dict[str, FileJournal] = {}
        self._idle: dict[Hashable, None] = {}
        self._workers: set[Hashable] = set()
        self._environment: Environment | None = None
        self._scorers, self._scoring = scorers, dict[str, Future[ScoredCell | None]]()
        sweeps = [self._shared(group) for group in grouped_by_benchmark(cells)]
        self._scheduler = Scheduler(sweeps, has_scorers=scorers is not None)

    def run(self, stop: StopRequest) -> None:
        """Work until every cell has its record."""
        for group in grouped_by_benchmark(self._cells.values()):
            for log in (f"sweep-{group[0].id}", *(cell.id for cell in group)):
                self._store.forget_log(log)
        while not self._scheduler.finished:
            self._take_scored()
            self._score()
            self._send()
            for worker, event in self._pool.events():
                self._take(worker, event)
            self._watch.show()
            stop.check()
            for cell_id, reason in list(self._scheduler.failed.items()):
                del self._scheduler.failed[cell_id]
                self._record(self._cells[cell_id], Outcome("failed", reason), 0.0)

    def _shared(self, group: Sequence[Cell]) -> SharedSweep:
        info = group[0].benchmark
        questions = info.limit or self._job.suite.benchmarks[info.label].n or LARGEST_UNKNOWN
        known = {cell.id: trusted(self._store.journal(cell)) for cell in group}
        return SharedSweep(tuple(known), group[0].model.model_dump_json(), known, float(len(group) * questions))

    def _journal(self, cell: Cell) -> FileJournal:
        assert self._environment is not None, "work is sent to workers that are welcome"
        if cell.id not in self._journals:
            self._journals[cell.id] = self._store.journal(cell, self._environment.device_kind)
        return self._journals[cell.id]

    def _score(self) -> None:
        """Let cells be scored, a few at a time: workers that have nothing to ask take from the same."""
        if self._scorers is None:
            return
        while len(self._scoring) < 1 + len(self._workers) // WORKERS_A_SCORER:
            found = self._scheduler.next_to_score()
            if found is None:
                return
            cell_id, swept = found
            self._progress.begin_scoring(self._cells[cell_id])
            self._scoring[cell_id] = self._scorers.score(self._cells[cell_id], swept)

    def _take_scored(self) -> None:
        """Record what was scored meanwhile, and leave to workers what could not be."""
        for cell_id, future in list(self._scoring.items()):
            if future.done():
                del self._scoring[cell_id]
                scored = future.result()
                self._scheduler.scored(cell_id, done=scored is not None)
                if scored is not None:
                    self._record(self._cells[cell_id], scored.outcome, scored.wall_s)

    def _send(self) -> None:
        for worker in list(self._idle):
            work = self._scheduler.next(worker, len(self._workers))
            if work is None:
                self._watch.idle(worker)
                continue
            self._watch.sent(worker, work)
            del self._idle[worker]
            if isinstance(work, MeasureCell):
                cell = self._cells[work.cell]
                self._progress.begin(cell)
                work = dataclasses.replace(work, known=trusted(self._journal(cell)))
            self._pool.start(worker, work)

    def _take(self, worker: Hashable, event: Event) -> None:
        """Act on what a worker tells."""
        scheduler, store = self._scheduler, self._store
        self._watch.took(worker, event)
        if isinstance(event, Ready):
            self._welcome(worker, event)
        elif isinstance(event, NewPicture):
            if store.picture(event.name) is None:
                store.save_picture(event.name, event.jpeg)
        elif isinstance(event, NewAnswers):
            self._journal(self._cells[event.cell]).add(list(event.answers))
            scheduler.answered(worker, event.cell, event.answers)
        elif isinstance(event, NewOutput):
            OutputFile(store.log_path(event.log), append=True).add(event.lines)
        elif isinstance(event, AnswersForgotten):
            self._journal(self._cells[event.cell]).remove()
        elif isinstance(event, Opened):
            scheduler.opened(worker, event.samples, event.window)
        elif isinstance(event, PartDone):
            scheduler.part_done(worker)
        elif isinstance(event, Closed):
            scheduler.closed(worker, event.costs)
        elif isinstance(event, CellMeasured):
            scheduler.measured(worker, event.cell)
            self._record(self._cells[event.cell], event.outcome, event.wall_s)
        if isinstance(event, Lost):
            self._idle.pop(worker, None)
            self._workers.discard(worker)
            self._progress.note(f"worker {worker} is gone: {event.reason}")
            scheduler.lost(worker, event.reason)
        elif isinstance(event, Ready | Opened | PartDone | Closed | CellMeasured):
            self._idle[worker] = None

    def _welcome(self, worker: Hashable, ready: Ready) -> None:
        """Let a worker in whose numbers belong to those of the others."""
        differing = self._planned.symmetric_difference(ready.cells)
        if differing:
            why = "its model weights, data, pruner files or package versions differ"
            raise UserError(f"node {ready.node} plans {len(differing)} cells otherwise than this one: {why}; make them equal")
        self._environment = self._environment or ready.environment
        kind, first = ready.environment.device_kind, self._environment.device_kind
        if kind != first:
            raise UserError(f"worker {worker} on {ready.node} has a {kind}, others a {first}: name one kind with --gpu-kind")
        self._store.refuse_other_device(self._cells.values(), kind)
        self._workers.add(worker)

    def _record(self, cell: Cell, outcome: Outcome, wall_s: float) -> None:
        """Write a cell's table and record, as a run on one device does."""
        assert self._environment is not None, "an outcome comes from a worker"
        if outcome.samples:
            outcome = dataclasses.replace(outcome, samples_sha256=self._store.save_samples(cell.id, outcome.samples))
        record = record_of(cell, outcome, self._job.suite.name, self._environment, max(wall_s, outcome.generate_s))
        self._store.add(record)
        self.visits.append(CellVisit(cell, record))
        self._journals.pop(cell.id, None)
        self._watch.ended(cell, headline(record.reason) if record.status == "failed" else None)
        self._progress.end(cell, record)
