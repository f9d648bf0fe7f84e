"""Cells that are scored beside the device have the records and tables of those that are scored where their model is."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import psutil
import pytest
from rich.console import Console

from vtpbench.harness.host.stopping import StopRequest, TimeIsUp
from vtpbench.harness.records.cell import Cell
from vtpbench.harness.records.journal import FileJournal
from vtpbench.harness.records.outcome import Swept
from vtpbench.harness.records.record import BatchInfo
from vtpbench.harness.run import scoring_process
from vtpbench.harness.run.engine import Engine
from vtpbench.harness.run.job import Job, RunOptions, context_of, make_job, scorers_of
from vtpbench.harness.run.loop import run
from vtpbench.harness.run.progress import Progress
from vtpbench.harness.run.scoring_process import ScoredCell, ScoringProcess, ScoringProcesses

scripted = SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "scripted_run.py")))
MATRIX = "matrix={pruners: [random, {fastv: {layer: 1}}], budgets: [8, 6], benchmarks: [demo-exist, demo-open], seeds: [0]}"
COST = Swept(0.0, BatchInfo(requested=2, smallest=2))


@pytest.fixture
def settings(tiny_checkpoint: Path, one_thread: None) -> Sequence[str]:
    return [f"models=[{{label: tiny, path: {tiny_checkpoint}, dtype: float32}}]", MATRIX]


def job_in(folder: Path, settings: Sequence[str]) -> Job:
    return make_job("demo", RunOptions(folder, (), settings, 6, 2), print)


def execute(job: Job, scorers: ScoringProcesses | None, stop: StopRequest | None = None) -> None:
    context = context_of(job, job.store, "cpu", Progress(Console(quiet=True)), stop)
    run(job.cells, replace(context, scorers=scorers))


def told(job: Job) -> list[dict[str, object]]:
    """Records without what time alone decides."""
    return sorted((r.model_dump(exclude={"timing", "created"}) for r in job.store.records()), key=lambda r: str(r["cell_id"]))


@pytest.fixture
def scored_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of cells that were scored where their model is."""
    ids, real = list[str](), Engine.run

    def noting(self: Engine, cell: Cell, *given: object, **named: object) -> object:
        ids.append(cell.id)
        return real(self, cell, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "run", noting)
    return ids


@pytest.fixture
def undisturbed(tmp_path: Path, settings: Sequence[str]) -> Job:
    job = job_in(tmp_path / "alone", settings)
    execute(job, None)
    return job


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.cmdline()[1:2] == ["-c"] and "sys.path" in child.cmdline()[2]]


def test_records_and_tables_are_those_of_cells_scored_in_their_run(
    tmp_path: Path, settings: Sequence[str], undisturbed: Job, scored_here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Future, "cancel", lambda self: False)  # else the run takes cells back while it has nothing else to do
    job = job_in(tmp_path / "beside", settings)
    execute(job, scorers_of(job, 1))
    assert scored_here == []
    assert told(job) == told(undisturbed)
    assert {record.status for record in job.store.records()} == {"ok"}
    assert all(record.timing and record.timing.generate_s > 0 for record in job.store.records())
    left = {path.stem for name in ("journal", "locks") for path in (job.store.folder / name).iterdir()}
    assert left.isdisjoint(cell.id for cell in job.cells)
    assert children() == []


def test_a_process_that_dies_costs_nothing(
    tmp_path: Path, settings: Sequence[str], undisturbed: Job, scored_here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring_process, "START", "{path!r}")
    started = list[object]()
    real = scoring_process.ScoringProcess
    monkeypatch.setattr(scoring_process, "ScoringProcess", lambda: started.append(0) or real())
    job = job_in(tmp_path / "dead", settings)
    execute(job, scorers_of(job, 1))
    assert sorted(scored_here) == sorted(cell.id for cell in job.cells)
    assert told(job) == told(undisturbed)
    assert 1 <= len(started) <= scoring_process.DEATHS


class Beside:
    """ScoringProcesses over the answers of a finished run, written anew."""

    def __init__(self, job: Job, scorers: ScoringProcesses) -> None:
        self.job, self.scorers = job, scorers

    def score(self, cell: Cell) -> ScoredCell | None:
        return self.scorers.score(cell, COST).result(120)


@pytest.fixture
def beside(tmp_path: Path, settings: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Beside]:
    job = job_in(tmp_path / "kept", settings)
    with monkeypatch.context() as patch:
        patch.setattr(FileJournal, "remove", lambda self: None)
        patch.setattr("vtpbench.harness.records.store.Store.is_whole", lambda self, record: False)
        execute(job, None)
    with scorers_of(job, 1) as scorers:
        yield Beside(job, scorers)


def test_what_cannot_be_scored_there_gives_nothing_and_the_process_goes_on_until_it_is_killed(beside: Beside) -> None:
    job, (whole, torn, strange, edited) = beside.job, beside.job.cells[:4]
    expected = job.store.read(whole.id)
    path = job.store.journal_path(torn.id)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    path = job.store.journal_path(edited.id)
    path.write_bytes(path.read_bytes().replace(b'"text": "', b'"text": "x', 1))
    assert beside.score(torn) is None
    assert beside.score(edited) is None
    unknown = replace(strange, pruner=strange.pruner.model_copy(update={"name": "nobody"}))
    assert beside.score(unknown) is None
    found = beside.score(whole)
    assert expected is not None
    assert found is not None
    assert (found.outcome.score, found.outcome.samples_sha256) == (expected.score, expected.samples_sha256)
    assert (found.outcome.observed, found.outcome.metrics) == (expected.observed, expected.metrics)
    assert found.outcome.samples == []
    (process,) = children()
    process.kill()
    assert beside.score(whole) is None
    assert beside.score(whole) is not None, "another process is started"
    (process,) = children()
    with beside.scorers:
        pass
    assert not process.is_running()


def test_a_run_that_is_to_stop_leaves_answers_and_no_process(
    tmp_path: Path, settings: Sequence[str], undisturbed: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring_process, "START", "import sys, time; sys.path[:] = {path!r}; time.sleep(600)")
    monkeypatch.setattr(Future, "cancel", lambda self: False)
    job, stop = job_in(tmp_path / "stopped", settings), StopRequest()
    answered = len(job.cells) * 6

    def check() -> None:
        if sum(job.store.kept_answers(cell.id) for cell in job.cells) == answered:
            raise TimeIsUp("enough")

    monkeypatch.setattr(stop, "check", check)
    seen, real = list[psutil.Process](), ScoringProcesses.__exit__

    def noting(self: ScoringProcesses, *error: object) -> None:
        seen.extend(children())
        real(self, *error)  # type: ignore[arg-type]

    monkeypatch.setattr(ScoringProcesses, "__exit__", noting)
    with pytest.raises(TimeIsUp):
        execute(job, scorers_of(job, 1), stop)
    assert len(seen) == 1
    assert children() == []
    assert job.store.records() == []
    monkeypatch.undo()
    execute(job, None)
    assert told(job) == told(undisturbed)


def test_a_process_ends_with_whoever_started_it_however_that_ends() -> None:
    code = "from vtpbench.harness.run.scoring_process import ScoringProcess as P; print(P()._process.pid, flush=True); input()"
    starter = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    process = psutil.Process(int(starter.stdout.readline()))
    starter.kill()
    starter.communicate()
    assert psutil.wait_procs([process], 60)[1] == []


STUBBED = (
    "import multiprocessing, os, sys, time, types; sys.path[:] = {path!r}; "
    "sys.modules['vtpbench.harness.run.task_loading'] = types.SimpleNamespace(TaskLoader=object); "
    "from vtpbench.harness.run import scoring_process as s; s._scored = lambda *a: DO; s.serve()"
)
"""A process that does something else than score, without lmms-eval."""


def do(work: str, monkeypatch: pytest.MonkeyPatch) -> ScoringProcess:
    monkeypatch.setattr(scoring_process, "START", STUBBED.replace("DO", work))
    return ScoringProcess()


def test_a_task_that_forks_is_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    process = do("multiprocessing.get_context('fork').Pool(2).map(abs, [-1, -2])", monkeypatch)
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(process.score, Path(), "nothing")  # type: ignore[arg-type]
        try:
            assert found.result(60) == [1, 2]
        finally:
            process.close()


@pytest.mark.parametrize("ending", ["os._exit(1)", "time.sleep(600)"])
def test_what_a_task_has_started_ends_with_the_process(monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    process = do(f"{ending} if os.fork() else time.sleep(600)", monkeypatch)
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(process.score, Path(), "nothing")  # type: ignore[arg-type]
        started, until = list[psutil.Process](), time.monotonic() + 60
        while not started and not found.done() and time.monotonic() < until:
            started = psutil.Process(process._process.pid).children(recursive=True)
        if "sleep" in ending:
            process.close()
        with pytest.raises(EOFError):
            found.result(60)
        assert psutil.wait_procs(started, 60)[1] == []
        process.close()


def test_what_cannot_be_sent_is_scored_elsewhere(tmp_path: Path) -> None:
    cell, shape = scripted.make_cell(), {"toy": lambda: None}
    with ScoringProcesses(1, tmp_path, {"exist": None}, shape) as scorers:  # type: ignore[dict-item]
        for _ in range(scoring_process.DEATHS):
            assert scorers.score(cell, COST).result(60) is None
        assert scorers.gave_up
        assert scorers.score(cell, COST).result(0) is None
