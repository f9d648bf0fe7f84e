from __future__ import annotations

import io
import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vtpbench.harness.host.checksummed import BadRecord
from vtpbench.harness.host.files import StorageError, write_atomic
from vtpbench.harness.records.cell import Answer, Sample
from vtpbench.harness.records.record import Record, Status
from vtpbench.harness.records.samples import read_table, write_table
from vtpbench.harness.records.store import Store

scripted = SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "scripted_run.py")))


def record_of(cell, status: Status = "ok", **change) -> Record:
    facts = {name: getattr(cell, name) for name in ("model", "pruner", "budget", "benchmark", "seed")}
    facts |= {"suite": "toy", "environment": scripted.ENVIRONMENT, "created": "2025-01-01T00:00:00+00:00"}
    return Record(cell_id=cell.id, status=status, **facts, **change)


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, warnings: list[str]) -> Store:
    store = Store(tmp_path / "toy", warnings.append)
    store.prepare()
    return store


def test_a_record_comes_back_equal(store: Store):
    record = record_of(scripted.make_cell())
    store.add(record)
    assert store.read(record.cell_id) == record
    assert store.records() == [record]


@pytest.mark.parametrize(("status", "done"), [("ok", True), ("infeasible", True), ("unsupported", True), ("failed", False)])
def test_only_failed_cells_are_missing_again(store: Store, status: Status, done: bool):
    cells = (scripted.make_cell(seed=0), scripted.make_cell(seed=1))
    store.add(record_of(cells[0], status, samples_sha256=store.save_samples(cells[0].id, [])))
    assert store.missing(cells) == (cells[1:] if done else cells)


SAMPLES = [Sample(str(i), f"{i:016x}", "", "is it?", "yes", "yes", 1.0, 4.0, "{}") for i in range(8)]


@pytest.fixture
def measured(store: Store) -> Record:
    cell = scripted.make_cell()
    record = record_of(cell, samples_sha256=store.save_samples(cell.id, SAMPLES))
    store.add(record)
    return record


def drop_end(table: Path) -> None:
    table.write_bytes(table.read_bytes()[:-3])


def edit_an_answer(table: Path) -> None:
    edited = [SAMPLES[0], replace(SAMPLES[1], answer="no"), *SAMPLES[2:]]
    table.write_bytes(write_table(edited))


def make_a_folder(table: Path) -> None:
    table.unlink()
    table.mkdir()
    (table / "x").touch()


@pytest.mark.parametrize("damage", [drop_end, edit_an_answer, make_a_folder, Path.unlink])
def test_a_table_that_is_not_its_record_s_is_named_once_set_aside_and_measured_again(
    store: Store, measured: Record, warnings: list[str], damage
):
    table = store.samples_path(measured.cell_id)
    damage(table)
    assert store.missing([scripted.make_cell()]) == (scripted.make_cell(),)
    assert store.samples(measured.cell_id) is None
    assert store.table(measured) is None
    assert [str(table) in line and "the next run measures its cell again" in line for line in warnings] == [True]
    store.add(measured.model_copy(update={"samples_sha256": store.save_samples(measured.cell_id, SAMPLES)}))
    assert store.missing([scripted.make_cell()]) == ()
    assert table.with_suffix(".bad1").exists() == (damage is not Path.unlink)


def test_no_flipped_bit_of_a_table_is_silent(store: Store, measured: Record):
    table, draw = store.samples_path(measured.cell_id), random.Random(0)
    content = table.read_bytes()
    for _ in range(400):
        flipped = bytearray(content)
        flipped[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        table.write_bytes(flipped)
        told: list[str] = []
        fresh = Store(store.folder, told.append)
        assert fresh.missing([scripted.make_cell()])
        assert fresh.samples(measured.cell_id) is None
        assert [str(table) in line for line in told] == [True]


def test_swapped_tables_and_records_are_noticed(store: Store, measured: Record, warnings: list[str]):
    other = scripted.make_cell(seed=1)
    hash_ = store.save_samples(other.id, [replace(sample, answer="no") for sample in SAMPLES])
    store.add(record_of(other, samples_sha256=hash_))
    one, two = store.samples_path(measured.cell_id), store.samples_path(other.id)
    one.rename(store.folder / "t"), two.rename(one), (store.folder / "t").rename(two)
    assert len(store.missing([scripted.make_cell(), other])) == 2
    assert all(any(str(path) in line for line in warnings) for path in (one, two))


FOREIGN = {
    "other columns": pa.table({"a": ["1"]}),
    "a column more": pa.Table.from_pylist([{**vars(SAMPLES[0]), "more": 1}]),
    "numbers for texts": pa.Table.from_pylist([{**vars(SAMPLES[0]), "answer": 1}]),
    "kept is no list": pa.Table.from_pylist([{**vars(SAMPLES[0]), "kept": "5"}]),
    "kept leads elsewhere": pa.Table.from_pylist(
        [{**vars(SAMPLES[0]), "kept": '[{"picture": "../a", "tokens": 1, "tiles": [], "cuts": []}]'}]
    ),
    "kept is deep": pa.Table.from_pylist([{**vars(SAMPLES[0]), "kept": "[" * 100_000}]),
    "detail is no JSON": pa.Table.from_pylist([{**vars(SAMPLES[0]), "detail": "{"}]),
    "detail is a list": pa.Table.from_pylist([{**vars(SAMPLES[0]), "detail": "[]"}]),
    "a long number": pa.Table.from_pylist([{**vars(SAMPLES[0]), "detail": f'{{"a": {"9" * 5000}}}'}]),
    "a name that leads elsewhere": pa.Table.from_pylist([{**vars(SAMPLES[0]), "sample": "../a"}]),
    "a sample twice": pa.Table.from_pylist([vars(SAMPLES[0]), vars(SAMPLES[0])]),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_table_that_no_run_writes_is_named_and_skipped_though_its_hash_is_right(case: str, store: Store, warnings: list[str]):
    cell, stream = scripted.make_cell(), io.BytesIO()
    pq.write_table(FOREIGN[case], stream)
    store.add(record_of(cell, samples_sha256=store.save_table(cell.id, stream.getvalue())))
    assert store.samples(cell.id) is None
    assert [line.startswith(f"{store.samples_path(cell.id)}: ") and "\n" not in line for line in warnings] == [True]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def edit(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "score": 99.0}))


def swap(path: Path) -> None:
    path.write_text(record_of(scripted.make_cell(seed=7)).dump())


@pytest.mark.parametrize("damage", [truncate, edit, swap])
def test_a_damaged_record_is_named_once_skipped_and_kept_beside_the_new_one(store: Store, warnings: list[str], damage):
    cell = scripted.make_cell()
    store.add(record_of(cell))
    path = store.record_path(cell.id)
    damage(path)
    damaged = path.read_bytes()

    assert store.records() == []
    assert store.missing([cell]) == (cell,)
    assert len(warnings) == 1
    assert str(path) in warnings[0]
    assert path.read_bytes() == damaged, "looking must change nothing"

    store.add(record_of(cell))
    assert path.with_suffix(".bad1").read_bytes() == damaged
    assert store.records() == [record_of(cell)]


def test_the_table_of_samples_can_be_read_by_name(store: Store):
    first = Sample("0", "img", "", "is it?", "yes", "yes", 1.0, 4.0, "{}")
    samples = [first, Sample("1", "img", "", "what?", "ü\n", "no", None, 4.0, "{}")]
    store.save_samples("abc", samples)
    table = pq.read_table(store.folder / "samples" / "abc.parquet")
    assert table.to_pylist() == [vars(sample) for sample in samples]


def test_tables_from_before_perceptual_hashes_are_read_without_them():
    sample = Sample("0", "0" * 16, "", "q", "a", "a", 1.0, 4.0, "{}", perceptual_hash="0123456789abcdef")
    table = pq.read_table(io.BytesIO(write_table([sample])))
    old, foreign = io.BytesIO(), io.BytesIO()
    pq.write_table(table.drop_columns("perceptual_hash"), old)
    pq.write_table(table.drop_columns("images"), foreign)
    assert list(read_table(write_table([sample]))["perceptual_hash"]) == ["0123456789abcdef"]
    assert list(read_table(old.getvalue())["perceptual_hash"]) == [""]
    with pytest.raises(BadRecord, match="its columns are not"):
        read_table(foreign.getvalue())
    with pytest.raises(BadRecord, match="a perceptual hash is none"):
        read_table(write_table([replace(sample, perceptual_hash="0123")]))


def test_pictures_come_back_by_name_and_no_other_file_does(store: Store):
    store.save_picture("0123456789abcdef-96x64", b"jpeg")
    (store.folder.parent / "secret.jpg").write_bytes(b"secret")
    assert store.picture("0123456789abcdef-96x64") == b"jpeg"
    assert store.picture("fedcba9876543210-96x64") is None
    assert [store.picture(name) for name in ("../secret", "../../secret", "", "0123456789abcdef-96x64\n")] == [None] * 4


@pytest.mark.parametrize("status", ["ok", "infeasible", "unsupported"])
def test_recording_a_cell_forgets_its_journal(store: Store, status: Status):
    cell = scripted.make_cell()
    store.journal(cell).add([Answer("0", "yes", ("img",), (16,), ((4, 4),))])
    store.add(record_of(cell, status))
    assert store.journal(cell).known() == {}
    assert list((store.folder / "journal").iterdir()) == []


def test_a_failed_cell_keeps_its_journal_for_the_next_attempt(store: Store):
    cell, answer = scripted.make_cell(), Answer("0", "yes", ("img",), (16,), ((4, 4),))
    store.journal(cell).add([answer])
    store.add(record_of(cell, "failed"))
    assert store.journal(cell).known() == {"0": answer}


@pytest.mark.parametrize("status", ["ok", "infeasible", "failed"])
def test_what_a_killed_run_left_of_a_finished_cell_is_cleared(store: Store, status: Status):
    cell = scripted.make_cell()
    store.add(record_of(cell, status, samples_sha256=store.save_samples(cell.id, SAMPLES)))
    store.journal(cell).add([Answer("0", "yes", ("img",), (16,), ((4, 4),))])
    lock = store.folder / "locks" / f"{cell.id}.lock"
    lock.touch()
    store.clear()
    assert [lock.exists(), store.journal_path(cell.id).exists()] == [status == "failed"] * 2


def test_what_a_live_run_holds_is_not_cleared(store: Store, measured: Record):
    lock = store.folder / "locks" / f"{measured.cell_id}.lock"
    code = f"import filelock\nwith filelock.FileLock({str(lock)!r}): print(1, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        run.stdout.readline()
        store.clear()
        assert lock.exists()
        run.communicate(b"\n")
    store.clear()
    assert not lock.exists()


def test_a_lease_is_exclusive_until_it_ends(store: Store, tmp_path: Path):
    cell = scripted.make_cell()
    path = tmp_path / "toy" / "locks" / f"{cell.id}.lock"

    def taken() -> bool:  # asked by another process: inside of one, lmms-eval makes file locks re-entrant
        attempt = f"filelock.FileLock({str(path)!r}).acquire(timeout=0)"
        code = f"import filelock\ntry: {attempt}\nexcept filelock.Timeout: print('taken')"
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return "taken" in shown.stdout

    with store.lease(cell) as mine:
        assert mine
        assert taken()
    assert not taken()


def test_a_file_in_the_way_is_named(tmp_path: Path):
    (tmp_path / "results").write_text("not a folder")
    with pytest.raises(StorageError, match=r"results/toy/records: Not a directory; move the file that is in the way"):
        Store(tmp_path / "results" / "toy", print).prepare()


def test_a_folder_that_cannot_be_made_is_named():
    with pytest.raises(StorageError, match="cannot write /proc/toy/records"):
        Store(Path("/proc/toy"), print).prepare()


def test_a_write_that_fails_leaves_the_old_file_and_no_part(tmp_path: Path):
    path = tmp_path / "table.md"
    write_atomic(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "not bytes")  # type: ignore[arg-type]  # fails after the part file was opened
    assert [p.name for p in tmp_path.iterdir()] == ["table.md"]
    assert path.read_bytes() == b"old"
