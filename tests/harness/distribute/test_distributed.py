"""Workers find together what one process finds alone, whatever their number, and also where one of them or the driver dies."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from forked_workers import ForkedPool
from rich.console import Console

from vtpbench.harness.distribute.cluster import ClusterOptions
from vtpbench.harness.distribute.driver import WorkerPool, run_distributed
from vtpbench.harness.distribute.messages import AskPart, Lost, MeasureCell, NewAnswers, Ready
from vtpbench.harness.distribute.ray_pool import RayPool
from vtpbench.harness.gather.status import examine
from vtpbench.harness.records.journal import FileJournal
from vtpbench.harness.records.store import Store
from vtpbench.harness.run.job import Job, RunOptions, execute, make_job, scorers_of
from vtpbench.harness.run.progress import Progress
from vtpbench.harness.run.summary import Summary

SUITE = """
models: [demo]
matrix: {{pruners: [random, "{folder}/noisy.py:Noisy"], budgets: [12], seeds: [0, 1], benchmarks: [demo-exist, demo-read]}}
batch_size: 2
pictures: 2
limit: 20
"""
NOISY = """
from dataclasses import dataclass
from typing import ClassVar

from vtpbench.pruners.random import Random


@dataclass(frozen=True)
class Noisy(Random):
    nested: ClassVar[bool] = False

    def select(self, view):
        print(f"choosing among the tokens of {len(view.keys)} pictures")
        return super().select(view)
"""
CELLS, QUESTIONS = 10, 20
Pools = Callable[[RunOptions], AbstractContextManager[WorkerPool]]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    (folder / "noisy.py").write_text(NOISY)
    path = folder / "small.yaml"
    path.write_text(SUITE.format(folder=folder))
    return path


@pytest.fixture(scope="module")
def alone(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A run in this process."""
    job = make_job(str(suite), RunOptions(tmp_path_factory.mktemp("alone")), print)
    assert execute(job, "cpu", quiet()).exit_code == 0
    return job


@pytest.fixture(autouse=True)
def _parts_of_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the scheduler share the rows of a window, which on a real device takes longer than all of this."""
    monkeypatch.setattr("vtpbench.harness.distribute.shared_sweep.PART_S", 0.3)
    monkeypatch.setattr("vtpbench.harness.distribute.shared_sweep.SHORTEST_S", 0.1)


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO()))


class WatchedPool:
    """Notes what is asked and told; kills the worker that tells the first answers, where it is to."""

    def __init__(self, pool: WorkerPool, killing: bool = False) -> None:
        self.pool, self.killing = pool, killing
        self.pids: dict[Any, int] = {}
        self.asked: list[Any] = []
        self.told: list[tuple[Any, Any]] = []

    def start(self, worker: Any, work: Any) -> None:
        self.asked.append(work)
        self.pool.start(worker, work)

    def events(self) -> Iterable[tuple[Any, Any]]:
        for worker, event in self.pool.events():
            self.told.append((worker, event))
            if isinstance(event, Ready):
                self.pids[worker] = event.pid
            yield worker, event
            if self.killing and isinstance(event, NewAnswers):
                self.killing = False
                os.kill(self.pids[worker], signal.SIGKILL)

    def answers(self) -> list[tuple[str, str]]:
        told = [event for _, event in self.told if isinstance(event, NewAnswers)]
        return [(event.cell, answer.sample) for event in told for answer in event.answers]


def run_on(suite: Path, out: Path, workers: int, scorers: int = 0) -> tuple[Summary, WatchedPool]:
    options = RunOptions(out)
    with ForkedPool(str(suite), options, workers) as pool:
        watched, job = WatchedPool(pool), make_job(str(suite), options, print)
        return run_distributed(job, quiet(), watched, scorers=scorers_of(job, scorers) if scorers else None), watched


def tables(store: Store) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (store.folder / "samples").glob("*.parquet")}


def scores(store: Store) -> dict[str, Any]:
    return {record.cell_id: (record.score, record.n, record.observed, record.answers) for record in store.records()}


def names(store: Store) -> list[str]:
    """Files of the results, but for what is left of locks, what was said, and what runs say of themselves."""
    found = (path.relative_to(store.folder) for path in store.folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.parts[0] not in ("locks", "logs", "runs"))


def choosing(store: Store) -> dict[str, int]:
    """Lines of the noisy pruner in each log."""
    logs = (store.folder / "logs").glob("*.log")
    found = {path.name: path.read_text().count("choosing among the tokens of") for path in logs}
    return {name: lines for name, lines in found.items() if lines}


def require_equal(summary: Summary, pool: WatchedPool, alone: Job) -> None:
    assert summary.exit_code == 0
    assert len(summary.visits) == CELLS
    store = Store(summary.folder, print)
    assert tables(store) == tables(alone.store), "per-sample tables, with answers and kept tokens, bit by bit"
    assert scores(store) == scores(alone.store)
    assert names(store) == names(alone.store), "records, tables and pictures, and no journal"
    assert [record.environment for record in store.records()] == [record.environment for record in alone.store.records()]
    told = pool.answers()
    assert len(told) == len(set(told)) == CELLS * QUESTIONS, "no answer lost, none given twice"


@pytest.mark.parametrize(("workers", "scorers"), [(1, 0), (2, 1), (4, 0)])
def test_any_number_of_workers_finds_what_one_process_finds(
    suite: Path, alone: Job, tmp_path: Path, workers: int, scorers: int
) -> None:
    summary, pool = run_on(suite, tmp_path, workers, scorers)
    require_equal(summary, pool, alone)
    measured = sum(isinstance(work, MeasureCell) for work in pool.asked)
    assert measured < CELLS if scorers else measured == CELLS
    assert choosing(Store(summary.folder, print)) == choosing(alone.store) != {}, "what a pruner says is in the same logs"
    parts = [work.part for work in pool.asked if isinstance(work, AskPart)]
    assert any(len(part.cells) < CELLS // 2 for part in parts), "rows of a window were shared"
    (status,) = examine(summary.folder, pytest.fail)
    assert status.records == {"ok": CELLS}
    (run,) = status.runs
    assert (run.state.state, run.state.ended, run.state.answers) == ("finished", CELLS, CELLS * QUESTIONS)
    assert sum(worker.answers for worker in run.state.workers) == CELLS * QUESTIONS
    assert {worker.pid for worker in run.state.workers} == set(pool.pids.values())


def test_two_workers_on_ray_find_the_same_where_one_is_killed(
    suite: Path, alone: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray._common.usage.usage_lib import usage_stats_enabled

    options = RunOptions(tmp_path)
    with RayPool(str(suite), options, ClusterOptions(workers=2), "cpu") as ray_pool:
        assert not usage_stats_enabled(), "a Ray that is started here reports nothing to anybody"
        pool = WatchedPool(ray_pool, killing=True)
        # Nobody comes in the place of the killed one: another's start takes longer than all that is left, and half the machine.
        monkeypatch.setattr(ray_pool, "_wanted", lambda: 2 if pool.killing else 1)
        summary = run_distributed(make_job(str(suite), options, print), quiet(), pool)
    assert [event for _, event in pool.told if isinstance(event, Lost)]
    require_equal(summary, pool, alone)
    assert len({worker for worker, event in pool.told if isinstance(event, NewAnswers)}) >= 2


def test_a_driver_that_dies_is_followed_by_the_same_command(suite: Path, alone: Job, tmp_path: Path) -> None:
    class Interrupted(WatchedPool):
        def start(self, worker: Any, work: Any) -> None:
            if isinstance(work, MeasureCell):
                raise KeyboardInterrupt
            super().start(worker, work)

    options = RunOptions(tmp_path)
    job = make_job(str(suite), options, print)
    with ForkedPool(str(suite), options, 1) as forked:
        pool = Interrupted(forked)
        with pytest.raises(KeyboardInterrupt):
            run_distributed(job, quiet(), pool)
    before = pool.answers()
    assert 0 < len(before) < CELLS * QUESTIONS
    assert {journal.given_on() for journal in map(FileJournal, (tmp_path / "small" / "journal").glob("*.jsonl"))} == {"CPU"}
    (status,) = examine(tmp_path / "small", pytest.fail)
    assert sum(n or 0 for n in status.begun.values()) == len(before)
    assert [run.state.state for run in status.runs] == ["stopped"]
    summary, pool = run_on(suite, tmp_path, 1)
    assert len(before) + len(pool.answers()) == CELLS * QUESTIONS
    assert tables(Store(summary.folder, print)) == tables(alone.store)
