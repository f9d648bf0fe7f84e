"""Cells of a sweep have the tables of cells measured alone, also where the sweep was stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from vtpbench.harness.records.record import Record
from vtpbench.harness.run.job import Job, RunOptions, execute, make_job
from vtpbench.harness.run.progress import Progress
from vtpbench.harness.run.sweep import sweep

BATCH = 2
pytestmark = pytest.mark.usefixtures("always_shared")

PRUNERS = "[random, {fastv: {layer: 1}}, visionzip, tome]"
MATRIX = f"matrix={{pruners: {PRUNERS}, budgets: [8, 6], benchmarks: [demo-exist, demo-open], seeds: [0]}}"


@pytest.fixture
def quick(tiny_checkpoint: Path, one_thread: None) -> Sequence[str]:
    return [f"models=[{{label: tiny, path: {tiny_checkpoint}, dtype: float32}}]", MATRIX, "pictures=3"]


def job_in(folder: Path, settings: Sequence[str]) -> Job:
    return make_job("demo", RunOptions(folder, (), settings, 12, BATCH), print)


def execute_quietly(job: Job) -> None:
    execute(job, "cpu", Progress(Console(quiet=True)))


def told(job: Job) -> dict[str, tuple[float | None, str | None, str | None]]:
    found: list[Record] = job.store.records()
    assert len(found) == len(job.cells)
    return {record.cell_id: (record.score, record.samples_sha256, record.reason) for record in found}


def test_cells_of_a_sweep_have_the_tables_of_cells_measured_one_by_one(tmp_path: Path, quick: Sequence[str]) -> None:
    together = job_in(tmp_path / "together", quick)
    execute_quietly(together)
    apart = job_in(tmp_path / "apart", quick)
    for cell in apart.cells:
        execute_quietly(replace(apart, cells=(cell,)))
    assert told(together) == told(apart)
    assert {record.status for record in together.store.records()} == {"ok"}
    assert all(record.timing is not None and record.timing.generate_s > 0 for record in together.store.records())
    assert all(record.timing.overhead_s >= 0 for record in together.store.records() if record.timing)


def test_a_sweep_that_is_stopped_goes_on_with_the_same_tables(
    tmp_path: Path, quick: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = job_in(tmp_path / "whole", quick)
    execute_quietly(whole)

    stopped, calls = job_in(tmp_path / "stopped", quick), 0

    def until_stopped(rows, questions, reader, progress):  # type: ignore[no-untyped-def] # as `sweep`
        def stop(done: int, total: int) -> None:
            nonlocal calls
            calls += 1
            if calls == 17:
                raise KeyboardInterrupt
            progress(done, total)

        sweep(rows, questions, reader, stop)

    monkeypatch.setattr("vtpbench.harness.run.engine.sweep", until_stopped)
    with pytest.raises(KeyboardInterrupt):
        execute_quietly(stopped)
    journals = [stopped.store.journal(cell).known() for cell in stopped.cells]
    assert sum(map(len, journals)) >= 16
    execute_quietly(stopped)
    assert told(stopped) == told(whole)


def test_what_a_pruner_says_goes_into_its_own_log(tmp_path: Path, quick: Sequence[str]) -> None:
    talker = tmp_path / "talker.py"
    talker.write_text(
        "from dataclasses import dataclass\n"
        "from vtpbench.pruners.base import Pruner\n"
        "@dataclass(frozen=True)\n"
        "class Talker(Pruner):\n"
        "    def score(self, view):\n"
        "        print('shown', len(view.features))\n"
        "        return view.features.norm(dim=-1)\n"
    )
    matrix = f"matrix={{pruners: ['{talker}:Talker'], budgets: [8], benchmarks: [demo-exist], seeds: [0]}}"
    job = job_in(tmp_path / "out", [quick[0], matrix])
    execute_quietly(job)
    said = {cell.pruner.name.rpartition(":")[2]: job.store.log_path(cell.id) for cell in job.cells}
    assert [name for name, log in said.items() if log.exists()] == ["Talker"]
    assert len(said) > 1
    assert set(said["Talker"].read_text().splitlines()) == {"shown 2", "shown 1"}
