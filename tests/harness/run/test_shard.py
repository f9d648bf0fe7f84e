"""Shards: whole windows, none twice, and joined the same as undivided."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from vtpbench.harness.gather.merge import merge
from vtpbench.harness.gather.status import examine
from vtpbench.harness.gather.status_text import status_lines
from vtpbench.harness.records.journal import FileJournal
from vtpbench.harness.records.record import Record
from vtpbench.harness.records.shard_note import read_note
from vtpbench.harness.records.store import Store
from vtpbench.harness.run.job import Job, RunOptions, execute, execute_shard, make_job
from vtpbench.harness.run.progress import Progress
from vtpbench.harness.run.shard import Shard, parse_shard
from vtpbench.harness.run.shard_run import ShardSummary
from vtpbench.pruners.errors import UserError

SUITE = """
models: [demo]
matrix:
  - {pruners: [random], budgets: [12], seeds: [0, 1], benchmarks: [demo-exist, demo-read]}
  - {pruners: [fastv], budgets: [2], benchmarks: [demo-read]}
batch_size: 2
pictures: 3
limit: 20
"""
OF = 2


@pytest.mark.parametrize("of", [1, 2, 3, 16])
@pytest.mark.parametrize("total", [0, 1, 8, 9, 100, 4097])
@pytest.mark.parametrize("turn", [0, 1, 5])
def test_shards_are_whole_windows_and_together_all_questions(of: int, total: int, turn: int) -> None:
    parts = [Shard(part, of).questions(total, 8, turn) for part in range(1, of + 1)]
    asked = sorted(n for part in parts for n in range(total)[part])
    assert asked == list(range(total))
    assert all(part.start % 8 == 0 or part.start == total for part in parts)
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 8 + 7, "of about the same size"


def test_small_benchmarks_spread_over_the_shards() -> None:
    parts = [[len(range(5)[Shard(p, 4).questions(5, 8, turn)]) for turn in range(4)] for p in range(1, 5)]
    assert [sum(part) for part in parts] == [5, 5, 5, 5]


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "a/b", "1/99999999"])
def test_what_is_no_shard_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match="3/16"):
        parse_shard(text)


def test_a_shard_is_read() -> None:
    assert parse_shard(" 3/16 ") == Shard(3, 16)


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "small.yaml"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="module")
def undivided(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    job = make_job(str(suite), RunOptions(tmp_path_factory.mktemp("undivided")), print)
    execute(job, "cpu", quiet())
    return job


@pytest.fixture(scope="module")
def shards(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ShardSummary]]:
    """Folder of results below which the shards lie, and how they went."""
    out = tmp_path_factory.mktemp("sharded")
    job = make_job(str(suite), RunOptions(out), print)
    return out, [execute_shard(job, Shard(part, OF), "cpu", quiet()) for part in range(1, OF + 1)]


def comparable(record: Record) -> Record:
    return record.model_copy(update={"timing": None, "created": ""})


def test_joined_shards_equal_an_undivided_run(
    suite: Path, undivided: Job, shards: tuple[Path, list[ShardSummary]], tmp_path: Path
) -> None:
    out, done = shards
    assert [summary.exit_code for summary in done] == [0, 0]
    assert [read_note(summary.folder).whole for summary in done] == [(1,), (2,)]
    assert sum(summary.answers for summary in done) == 7 * 20, "the row that is impossible is not asked"
    job = make_job(str(suite), RunOptions(tmp_path), print)
    told = merge([out], tmp_path, pytest.fail).lines()
    assert told == [
        f"small: 2 of 2 shards, 140 answers added; score them: the same `vtpbench run`, without --shard, with --out {tmp_path}"
    ]
    before = {cell.id: job.store.kept_answers(cell.id) for cell in job.cells}
    assert sorted(before.values()) == [0, *[20] * 7]
    execute(job, "cpu", quiet())
    one, other = undivided.store, job.store
    assert list(map(comparable, one.records())) == list(map(comparable, other.records()))
    for kind in ("samples", "pictures"):
        files = {path.name: path.read_bytes() for path in (one.folder / kind).iterdir()}
        assert files == {path.name: path.read_bytes() for path in (other.folder / kind).iterdir()}
    assert not list((other.folder / "journal").iterdir())
    assert all(record.timing.generate_s < 0.01 for record in other.records() if record.timing), "nothing was asked again"


def test_what_a_missing_shard_would_have_asked_the_run_asks(
    suite: Path, undivided: Job, shards: tuple[Path, list[ShardSummary]], tmp_path: Path
) -> None:
    told = merge([shards[1][0].folder], tmp_path, pytest.fail).lines()
    assert told[1] == "small: not here, or not complete: shard 2; what is missing is asked by that run"
    job = make_job(str(suite), RunOptions(tmp_path), print)
    execute(job, "cpu", quiet())
    assert list(map(comparable, undivided.store.records())) == list(map(comparable, job.store.records()))


def test_a_merge_is_repeated_without_effect(shards: tuple[Path, list[ShardSummary]], tmp_path: Path) -> None:
    merge([shards[0]], tmp_path, pytest.fail)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert "0 answers added" in merge([shards[0]], tmp_path, pytest.fail).lines()[0]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_shards_that_differ_are_named_and_nothing_is_written(shards: tuple[Path, list[ShardSummary]], tmp_path: Path) -> None:
    folder = tmp_path / "results" / "small" / "shards" / "2-of-2"
    folder.mkdir(parents=True)
    note = json.loads((shards[1][1].folder / "shards.json").read_text())
    journal = next((shards[1][0].folder / "journal").glob("*.jsonl"))
    changed = replace(next(iter(FileJournal(journal).known().values())), text="otherwise")
    FileJournal(folder / "journal" / journal.name).add([changed])
    (folder / "shards.json").write_text(json.dumps(note))
    with pytest.raises(UserError, match=r"question \d+ has the answer .* and 'otherwise'"):
        merge([shards[1][0].folder, folder], tmp_path / "out", pytest.fail)
    (folder / "shards.json").write_text(json.dumps({**note, "device": "H100"}))
    with pytest.raises(UserError, match=r"ran on CPU .* and H100 .*; no table mixes these"):
        merge([shards[1][0].folder, folder], tmp_path / "out", pytest.fail)
    (folder / "shards.json").write_text(json.dumps({**note, "of": 3}))
    with pytest.raises(UserError, match="join shards of one division"):
        merge([shards[1][0].folder, folder], tmp_path / "out", pytest.fail)
    (folder / "shards.json").write_text("{")
    with pytest.raises(UserError, match="is damaged; remove it with its folder"):
        merge([folder], tmp_path / "out", pytest.fail)
    assert not (tmp_path / "out").exists()


def test_answers_of_another_device_are_not_added_to(suite: Path, shards: tuple[Path, list[ShardSummary]], tmp_path: Path) -> None:
    merge([shards[0]], tmp_path, pytest.fail)
    for path in (tmp_path / "small" / "journal").glob("*.jsonl"):
        answers = list(FileJournal(path).known().values())
        path.unlink()
        FileJournal(path, "H100").add(answers)
    job = make_job(str(suite), RunOptions(tmp_path), print)
    with pytest.raises(UserError, match="are of H100, those of CPU would not be comparable: use H100, or another folder"):
        execute(job, "cpu", quiet())
    with pytest.raises(UserError, match=r"answers of CPU and H100; no table mixes these"):
        merge([shards[0]], tmp_path, pytest.fail)
    assert not job.store.records()


def test_a_shard_goes_on_where_it_was_stopped_and_reports_its_state(suite: Path, tmp_path: Path) -> None:
    job, shard = make_job(str(suite), RunOptions(tmp_path), print), Shard(1, OF)

    class Stopping(Progress):
        def advance(self, done: int, total: int) -> None:
            if 0 < done < total:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute_shard(job, shard, "cpu", Stopping(Console(file=io.StringIO())))
    folder = shard.folder(job.store.folder)
    kept = sum(Store(folder, pytest.fail).kept_answers(cell.id) for cell in job.cells)
    assert kept > 0
    assert read_note(folder).whole == ()
    page = "\n".join(status_lines(examine(tmp_path, pytest.fail), 200))
    assert "run (shard 1/2)" in page
    assert "stopped" in page
    summary = execute_shard(job, shard, "cpu", quiet())
    assert summary.exit_code == 0
    assert summary.answers > kept
    page = "\n".join(status_lines(examine(tmp_path, pytest.fail), 200))
    assert "`vtpbench merge` joins the shards" in page
    assert summary.lines()[-1].startswith(f"shard 1/2: 8 rows, {summary.answers} answers in {folder}")
