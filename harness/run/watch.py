"""Word of a run for whoever looks from another shell: counted as it goes, written every few seconds by a thread of its own."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from vtpbench.harness.host.files import StorageError
from vtpbench.harness.records.cell import Cell
from vtpbench.harness.records.run_state import EVERY_S, RunState, WorkerState, forget_ended, write_state
from vtpbench.harness.run.tally import Speed, Tally

if TYPE_CHECKING:
    from vtpbench.harness.suite.benchmarks import Benchmark


def questions_of(cells: Iterable[Cell], benchmarks: Mapping[str, Benchmark]) -> dict[str, int | None]:
    """Say how many questions cells ask, by id, as far as the suite tells; None = unknown until they are read."""
    sizes = {cell.id: (cell.benchmark.limit, benchmarks[cell.benchmark.label].n) for cell in cells}
    return {cell: min((n for n in known if n is not None), default=None) for cell, known in sizes.items()}


class RunWatch:
    """Counts what workers do; inside the context its file says so.

    A disk that refuses this file ends no run: the files that results rest on say by themselves that they cannot be written.

    Parameters
    ----------
    folder : results of the suite
    expected : answers that each cell will have, by id; None = unknown
    there : that it has already, by id
    shard : which part of the questions is asked, such as `3/16`; None = all

    """

    def __init__(
        self, folder: Path, expected: Mapping[str, int | None], there: Mapping[str, int], shard: str | None = None
    ) -> None:
        self._folder, self._shard = folder, shard
        self._tally = Tally(expected, there)
        self._cells = list(expected)
        self._workers: dict[str, WorkerState] = {}
        self._speeds: dict[str, Speed] = {}
        self._started = time.time()
        self._lock, self._over = Lock(), Event()
        self._thread = Thread(target=self._keep_writing, name="run state", daemon=True)

    def __enter__(self) -> RunWatch:
        if self._cells:  # a run that finds nothing to do leaves the word of the last one
            forget_ended(self._folder, platform.node())
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._cells:
            return
        self._over.set()
        self._thread.join()
        self._write("finished" if kind is None else "stopped")

    def join(self, name: str, device: str, node: str | None = None, pid: int | None = None) -> None:
        """Take a worker in; by default this process."""
        with self._lock:
            self._speeds.setdefault(name, Speed())
            self._workers[name] = WorkerState(name=name, node=node or platform.node(), pid=pid or os.getpid(), device=device)

    def leave(self, name: str) -> None:
        """Let a worker go."""
        with self._lock:
            self._workers.pop(name, None)

    def doing(self, name: str, what: str, asking: bool = False) -> None:
        """Say what a worker does now, and whether answers are to come of it."""
        with self._lock:
            self._workers[name] = self._workers[name].model_copy(update={"doing": what})
            if asking:
                self._speeds[name].begin()

    def expect(self, cells: Iterable[str], each: int) -> None:
        """Learn how many answers cells will have."""
        with self._lock:
            self._tally.expect(cells, each)

    def answered(self, name: str, cell: str, answers: int) -> None:
        """Count answers that a worker has given."""
        with self._lock:
            self._tally.add(cell, answers)
            self._speeds[name].add(answers)

    def reset(self, cell: str) -> None:
        """Note that the answers of a cell so far are worth nothing."""
        with self._lock:
            self._tally.set(cell, 0)

    def reached(self, name: str, cells: Iterable[str], each: float, known: bool = False) -> None:
        """Note how many answers each of some cells has now, and that a worker has given what is new unless it was `known`."""
        with self._lock:
            new = sum(self._tally.set(cell, each) for cell in cells)
            if known:
                self._speeds[name].begin()
            else:
                self._speeds[name].add(new)

    def end(self, cell: str, name: str, failure: str | None = None) -> None:
        """Note that a cell has its record, or has failed; `name` is how people call it."""
        with self._lock:
            self._tally.end(cell)
            if failure is not None:
                self._tally.failed[name] = failure

    def state(self, state: Literal["running", "finished", "stopped"] = "running") -> RunState:
        """Say how the run stands."""
        with self._lock:
            speeds = {name: self._speeds[name].per_s() for name in self._workers}
            total, left = sum(speed or 0.0 for speed in speeds.values()), self._tally.left
            workers = [
                worker.model_copy(update={"answers": round(self._speeds[name].total), "answers_s": speeds[name]})
                for name, worker in self._workers.items()
            ]
            return RunState(
                host=platform.node(),
                pid=os.getpid(),
                started=self._started,
                updated=time.time(),
                state=state,
                cells=self._cells,
                ended=self._tally.ended,
                failed=self._tally.failed,
                answers=self._tally.there,
                expected=None if left is None else self._tally.there + left,
                left_s=left / total if left is not None and total else None,
                shard=self._shard,
                workers=workers,
            )

    def _keep_writing(self) -> None:
        self._write("running")
        while not self._over.wait(EVERY_S):
            self._write("running")

    def _write(self, state: Literal["running", "finished", "stopped"]) -> None:
        with suppress(StorageError):
            write_state(self._folder, self.state(state))
