"""Cells are scored in processes of their own, so that the device goes on with the next questions meanwhile.

Nothing rests on them: a cell that they cannot score, whatever the reason, is measured where its model is, and says there what is
wrong.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from time import perf_counter
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, TypeVar

from vtpbench.harness.host.libraries import output_to
from vtpbench.harness.records.journal import FileJournal
from vtpbench.harness.records.outcome import Outcome, Swept
from vtpbench.harness.records.store import Store
from vtpbench.harness.run.answer_faults import trusted

if TYPE_CHECKING:
    from vtpbench.harness.records.cell import Cell
    from vtpbench.harness.run.task_loading import TaskLoader
    from vtpbench.harness.suite.benchmarks import Benchmark
    from vtpbench.pruners.base import ModelShape


S = TypeVar("S", bound="ScoringProcesses")
START = "import sys; sys.path[:] = {path!r}; from vtpbench.harness.run.scoring_process import serve; serve()"
"""With the modules of whoever starts it, and none that happen to lie in its working folder."""
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
"""A process that only scores must not take memory of a GPU."""
DEATHS = 2
"""Processes that may die before no more are started: whatever it is, it is not one cell."""


@dataclass(frozen=True)
class AnsweredCell:
    """A cell to be scored.

    Attributes
    ----------
    shape : of its model
    swept : what its answers have cost

    """

    cell: Cell
    benchmark: Benchmark
    shape: ModelShape
    swept: Swept


@dataclass(frozen=True)
class ScoredCell:
    """A cell's outcome, whose samples are in their table, and the seconds that answering and scoring took."""

    outcome: Outcome
    wall_s: float


class ScoringProcess:
    """Scores one cell at a time; starts at once, and takes the time that importing lmms-eval takes."""

    def __init__(self) -> None:
        """Start it; raises `OSError` where no process can be had."""
        command = [sys.executable, "-c", START.format(path=sys.path)]
        # In a session of its own, as Ctrl-C is for whoever started it, with whom it ends.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **NO_GPU},
            start_new_session=True,
        )
        Thread(target=self._clear, daemon=True).start()

    def score(self, folder: Path, answered: AnsweredCell) -> ScoredCell | None:
        """Score a cell whose answers are in a folder of results; None where that fails.

        Raises `OSError` or `EOFError` where the process is gone, and whatever pickle does about what cannot be sent.
        """
        assert self._process.stdin is not None, "it is a pipe"
        assert self._process.stdout is not None, "it is a pipe"
        pickle.dump((folder, answered), self._process.stdin)
        self._process.stdin.flush()
        found: ScoredCell | None = pickle.load(self._process.stdout)
        return found

    def close(self) -> None:
        """End it, whatever it is at, with all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _clear(self) -> None:
        """Once it is gone, end what a task has started there: that would hold the pipe open on which its reply is awaited."""
        with suppress(ChildProcessError, ProcessLookupError):
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)  # its number stays its own meanwhile
            os.killpg(self._process.pid, signal.SIGKILL)


def serve() -> None:
    """Score what is asked for at stdin, and reply at stdout; end where the other side does."""
    stream, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # a task that forks closes its stdin, and would wait for who reads from it here
    os.dup2(2, 1)  # what tasks print is no reply
    requests: SimpleQueue[tuple[Path, AnsweredCell]] = SimpleQueue()
    Thread(target=_receive, args=(stream, requests), daemon=True).start()
    from vtpbench.harness.run.task_loading import TaskLoader

    tasks = TaskLoader()
    while True:
        pickle.dump(_scored(*requests.get(), tasks), replies)
        replies.flush()


def _receive(stream: IO[bytes], requests: SimpleQueue[Any]) -> None:
    """Hand on what comes; whoever asked may be gone in the middle of a cell."""
    try:
        while True:
            requests.put(pickle.load(stream))
    finally:
        os.killpg(os.getpgrp(), signal.SIGKILL)  # this process, and what a task has started


def _scored(folder: Path, answered: AnsweredCell, tasks: TaskLoader) -> ScoredCell | None:
    """Score a cell, and write its table; None where anything goes wrong."""
    from vtpbench.harness.run.known_answers import score  # imports lmms-eval

    start, store, cell_id = perf_counter(), Store(folder, lambda line: None), answered.cell.id
    try:
        with output_to(store.log_path(cell_id), append=True):
            outcome = score(answered, trusted(FileJournal(store.journal_path(cell_id))), tasks)
            if outcome.status != "ok":
                return None
            table = store.save_samples(cell_id, outcome.samples) if outcome.samples else None
    except BaseException:  # the code of a task may also end the program; the cell's own turn tells what is wrong
        return None
    return ScoredCell(replace(outcome, samples=[], samples_sha256=table), perf_counter() - start + answered.swept.seconds)


def _nothing() -> Future[ScoredCell | None]:
    future: Future[ScoredCell | None] = Future()
    future.set_result(None)
    return future


class ScoringProcesses:
    """Processes that score the cells of a run.

    Parameters
    ----------
    count : how many there may be; they start when they are needed
    folder : of the results
    benchmarks, shapes : by the labels of benchmarks and models

    """

    def __init__(self, count: int, folder: Path, benchmarks: Mapping[str, Benchmark], shapes: Mapping[str, ModelShape]) -> None:
        self._folder, self._benchmarks, self._shapes = folder, benchmarks, shapes
        self._threads = ThreadPoolExecutor(count, "scoring")
        self._lock, self._deaths, self._closed = Lock(), 0, False
        self._idle: list[ScoringProcess] = []
        self._all: list[ScoringProcess] = []

    def score(self, cell: Cell, swept: Swept) -> Future[ScoredCell | None]:
        """Score a cell whose questions are answered; its future gives None where that fails."""
        if self.gave_up:
            return _nothing()
        benchmark, shape = self._benchmarks[cell.benchmark.label], self._shapes[cell.model.label]
        try:
            return self._threads.submit(self._score, AnsweredCell(cell, benchmark, shape, swept))
        except RuntimeError:  # no thread is to be had
            return _nothing()

    @property
    def gave_up(self) -> bool:
        """Whether no more processes are started, as `DEATHS` of them died."""
        return self._deaths >= DEATHS

    def _score(self, answered: AnsweredCell) -> ScoredCell | None:
        """Let a process score a cell, while this thread waits."""
        process = None
        try:
            process = self._take()
            found = None if process is None else process.score(self._folder, answered)
        except Exception:  # it died, or what it is sent cannot be
            self._bury(process)
            return None
        if process is not None:
            self._idle.append(process)
        return found

    def _bury(self, process: ScoringProcess | None) -> None:
        with self._lock:
            self._deaths += 1
        if process is not None:
            process.close()

    def _take(self) -> ScoringProcess | None:
        with self._lock:
            if self._closed or self.gave_up:
                return None
            if not self._idle:
                self._all.append(ScoringProcess())
                return self._all[-1]
            return self._idle.pop()

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            self._closed = True
        for process in self._all:
            process.close()
        self._threads.shutdown(cancel_futures=True)
