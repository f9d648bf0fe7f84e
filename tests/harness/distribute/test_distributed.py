"""Real Ray workers on the CPU: what they find together is what one process finds alone, also where one of them is killed."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vtpbench.harness.distribute.cluster import ClusterOptions
from vtpbench.harness.distribute.driver import run_distributed
from vtpbench.harness.distribute.messages import Lost, MeasureCell, NewAnswers, Ready
from vtpbench.harness.distribute.ray_pool import RayPool
from vtpbench.harness.records.store import Store
from vtpbench.harness.run.job import Job, RunOptions, execute, make_job
from vtpbench.harness.run.progress import Progress
from vtpbench.harness.run.summary import Summary

SUITE = """
models: [demo]
matrix: {pruners: [random, divprune], budgets: [12], seeds: [0, 1], benchmarks: [demo-exist, demo-read]}
batch_size: 4
pictures: 2
"""
CELLS, QUESTIONS = 8, 40


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "small.yaml"
    path.write_text(f"{SUITE}limit: {QUESTIONS}\n")
    return path


@pytest.fixture(scope="module")
def alone(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A run in this process."""
    job = make_job(str(suite), RunOptions(tmp_path_factory.mktemp("alone")), print)
    assert execute(job, "cpu", quiet()).exit_code == 0
    return job


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO()))


class WatchedPool(RayPool):
    """Notes what is told; kills the worker that tells the first answers, where it is to."""

    killing = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.pids: dict[Any, int] = {}
        self.told: list[tuple[Any, Any]] = []

    def events(self) -> Iterable[tuple[Any, Any]]:
        return self._watched()

    def _watched(self) -> Iterator[tuple[Any, Any]]:
        for worker, event in super().events():
            self.told.append((worker, event))
            if isinstance(event, Ready):
                self.pids[worker] = event.pid
            yield worker, event
            if self.killing and isinstance(event, NewAnswers):
                self.killing = False
                os.kill(self.pids[worker], signal.SIGKILL)


def run_on_workers(suite: Path, out: Path, workers: int, killing: bool = False) -> tuple[Summary, WatchedPool]:
    options = RunOptions(out)
    job = make_job(str(suite), options, print)
    with WatchedPool(str(suite), options, ClusterOptions(workers=workers), "cpu") as pool:
        pool.killing = killing
        return run_distributed(job, quiet(), pool), pool


def tables(store: Store) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (store.folder / "samples").glob("*.parquet")}


def scores(store: Store) -> dict[str, Any]:
    return {record.cell_id: (record.score, record.n, record.observed, record.answers) for record in store.records()}


def names(store: Store) -> list[str]:
    """Files of the results, but for what is left of locks and logs."""
    found = (path.relative_to(store.folder) for path in store.folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.parts[0] not in ("locks", "logs"))


def test_workers_find_what_one_process_finds_also_where_one_is_killed(suite: Path, alone: Job, tmp_path: Path) -> None:
    summary, pool = run_on_workers(suite, tmp_path, 2, killing=True)
    assert [event for _, event in pool.told if isinstance(event, Lost)]
    assert summary.exit_code == 0
    assert len(summary.visits) == CELLS
    store = Store(summary.folder, print)
    assert tables(store) == tables(alone.store), "per-sample tables, with answers and kept tokens, bit by bit"
    assert scores(store) == scores(alone.store)
    assert names(store) == names(alone.store), "records, tables and pictures, and no journal"
    assert [record.environment for record in store.records()] == [record.environment for record in alone.store.records()]
    told = [(event.cell, answer.sample) for _, event in pool.told if isinstance(event, NewAnswers) for answer in event.answers]
    assert len(told) == len(set(told)) == CELLS * QUESTIONS, "no answer lost, none given twice"
    assert {worker for worker, event in pool.told if isinstance(event, NewAnswers)} >= {"1", "2"}


def test_a_driver_that_dies_is_followed_by_the_same_command(suite: Path, alone: Job, tmp_path: Path) -> None:
    class Interrupted(WatchedPool):
        def start(self, worker: Any, work: Any) -> None:
            if isinstance(work, MeasureCell):
                raise KeyboardInterrupt
            super().start(worker, work)

    options = RunOptions(tmp_path)
    job = make_job(str(suite), options, print)
    with pytest.raises(KeyboardInterrupt), Interrupted(str(suite), options, ClusterOptions(workers=1), "cpu") as pool:
        run_distributed(job, quiet(), pool)
    asked = sum(len(event.answers) for _, event in pool.told if isinstance(event, NewAnswers))
    assert 0 < asked < CELLS * QUESTIONS
    summary, pool = run_on_workers(suite, tmp_path, 1)
    assert asked + sum(len(event.answers) for _, event in pool.told if isinstance(event, NewAnswers)) == CELLS * QUESTIONS
    assert tables(Store(summary.folder, print)) == tables(alone.store)
