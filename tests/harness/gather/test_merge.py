from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest

from vtpbench.harness.gather.merge import merge
from vtpbench.harness.records.cell import Sample
from vtpbench.harness.records.record import BatchInfo, Record, Timing
from vtpbench.harness.records.samples import table_hash, write_table
from vtpbench.harness.records.store import Store
from vtpbench.pruners.errors import UserError

scripted = SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "scripted_run.py")))
SAMPLES = [Sample(str(i), "00ff", "", "Is it?", "yes", "yes", 1.0, 4.0, "{}") for i in range(3)]


def make(seed: int = 0, **change: Any) -> Record:
    cell = scripted.make_cell(seed=seed)
    facts = {name: getattr(cell, name) for name in ("model", "pruner", "budget", "benchmark", "seed")}
    facts |= {"suite": "toy", "environment": scripted.ENVIRONMENT, "created": "2025", "status": "ok", "score": 50.0, "n": 3}
    facts["samples_sha256"] = table_hash(write_table(SAMPLES))
    return Record(cell_id=cell.id, **{**facts, **change})


def put(folder: Path, *records: Record, samples: list[Sample] | None = SAMPLES) -> Path:
    store = Store(folder / "toy", pytest.fail)
    store.prepare()
    for record in records:
        table = None if samples is None else store.save_samples(record.cell_id, samples)
        store.add(record.model_copy(update={"samples_sha256": table}))  # `make` means the usual samples
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_cells_of_two_machines_come_together_without_journals_and_leases(tmp_path: Path) -> None:
    one, two, out = put(tmp_path / "a", make(0), make(1)), put(tmp_path / "b", make(2)), tmp_path / "out"
    (one / "toy" / "journal" / "x.jsonl").write_text("{}\n")
    (two / "toy" / "locks" / "x.lock").touch()
    merged = merge([one, two / "toy"], out, pytest.fail)
    assert merged.lines() == ["3 cells added, 0 were there already, 0 equal copies"]
    store = Store(out / "toy", pytest.fail)
    assert {r.cell_id: r for r in store.records()} == {r.cell_id: r for r in (make(0), make(1), make(2))}
    assert {path.parent.name for path in out.rglob("*") if path.is_file()} == {"records", "samples"}
    assert [len(store.samples(record.cell_id)) for record in store.records()] == [3, 3, 3]
    before = content(out)
    assert merge([one, two], out, pytest.fail).lines() == ["0 cells added, 3 were there already, 0 equal copies"]
    assert content(out) == before


def test_where_and_when_a_cell_ran_is_no_conflict(tmp_path: Path) -> None:
    elsewhere = scripted.ENVIRONMENT.model_copy(update={"device": "another", "git_commit": "abc"})
    times = {"timing": Timing(wall_s=9, generate_s=8, overhead_s=1), "batch": BatchInfo(requested=4, smallest=2)}
    model = make().model.model_copy(update={"id": "/mnt/toy"})
    twin = make(environment=elsewhere, model=model, created="2026", score=50.0 * (1 + 1e-13), **times)
    merged = merge([put(tmp_path / "a", make()), put(tmp_path / "b", twin)], tmp_path / "out", pytest.fail)
    assert (merged.added, merged.copies) == (1, 1)


@pytest.mark.parametrize(
    ("change", "samples", "told"),
    [
        ({"score": 51.0}, SAMPLES, "score 50 and 51"),
        ({"metrics": {"accuracy": 0.5}}, SAMPLES, "metrics accuracy None and 0.5"),
        ({"status": "infeasible", "score": None}, SAMPLES, "status 'ok' and 'infeasible'"),
        ({}, [*SAMPLES[:2], replace(SAMPLES[2], answer="no")], "question 2 answer 'yes' and 'no'"),
        ({}, SAMPLES[:2], "questions 3 and 2"),
    ],
)
def test_copies_that_differ_are_named_and_nothing_is_written(tmp_path: Path, change, samples, told: str) -> None:
    one, two = put(tmp_path / "a", make(0)), put(tmp_path / "b", make(0, **change), make(1), samples=samples)
    with pytest.raises(UserError) as error:
        merge([one, two], tmp_path / "out", pytest.fail)
    message = str(error.value)
    assert f"toy/{make(0).cell_id} (toy, random, exist): {told}: " in message
    assert all(str(folder / "toy" / "records" / f"{make(0).cell_id}.json") in message for folder in (one, two))
    assert not (tmp_path / "out").exists()


def test_what_lies_in_the_target_takes_part_in_the_check(tmp_path: Path) -> None:
    out = put(tmp_path / "out", make(0))
    before = content(out)
    with pytest.raises(UserError, match="score 50 and 51"):
        merge([put(tmp_path / "a", make(0, score=51.0), make(1))], out, pytest.fail)
    assert content(out) == before


def test_a_result_takes_the_place_of_a_failure_and_says_so(tmp_path: Path) -> None:
    failed = make(0, status="failed", score=None, reason="out of memory")
    out = put(tmp_path / "out", failed, samples=None)
    merged = merge([put(tmp_path / "a", make(0))], out, pytest.fail)
    assert merged.lines()[1:] == [f"cell {failed.cell_id}: a result took the place of a failed record"]
    assert Store(out / "toy", pytest.fail).records() == [make(0)]
    merge([put(tmp_path / "b", failed, samples=None)], out, pytest.fail)
    assert Store(out / "toy", pytest.fail).records() == [make(0)]


def test_a_copy_that_has_its_samples_lends_them(tmp_path: Path) -> None:
    one, two = put(tmp_path / "a", make(0), samples=None), put(tmp_path / "b", make(0))
    merge([one, two], tmp_path / "out", pytest.fail)
    assert len(Store(tmp_path / "out" / "toy", pytest.fail).samples(make(0).cell_id)) == 3


PICTURE = "0123456789abcdef-8x8"
KEPT = [replace(SAMPLES[0], kept=json.dumps([{"picture": PICTURE, "tokens": 4, "tiles": [], "cuts": []}])), *SAMPLES[1:]]


def test_pictures_come_along_and_a_copy_without_them_is_no_other(tmp_path: Path) -> None:
    one, two, out = put(tmp_path / "a", make(0)), put(tmp_path / "b", make(0), samples=KEPT), tmp_path / "out"
    Store(two / "toy", pytest.fail).save_picture(PICTURE, b"jpeg")
    merged = merge([one, two], out, pytest.fail)
    store = Store(out / "toy", pytest.fail)
    assert (merged.added, merged.copies) == (1, 1)
    assert store.picture(PICTURE) == b"jpeg"
    assert store.samples(make(0).cell_id).kept.tolist() == [sample.kept for sample in KEPT]
    before = content(out)
    merge([one], out, pytest.fail)
    assert content(out) == before, "a copy without pictures takes none away"


def test_a_table_that_names_no_pictures_is_left_behind_and_missing_pictures_are_no_obstacle(tmp_path: Path) -> None:
    hostile = json.dumps([{"picture": "../../a", "tokens": 4, "tiles": [], "cuts": []}])
    source = put(tmp_path / "a", make(0), samples=[KEPT[0], replace(SAMPLES[1], kept=hostile), SAMPLES[2]])
    warnings: list[str] = []
    merge([source], tmp_path / "out", warnings.append)
    assert ["'../../a' is no name of a picture" in line for line in warnings] == [True]
    merge([put(tmp_path / "b", make(1), samples=KEPT)], tmp_path / "new", pytest.fail)
    assert {path.name for path in (tmp_path / "new" / "toy").iterdir()} == {"records", "samples"}
    assert Store(tmp_path / "new" / "toy", pytest.fail).samples(make(1).cell_id) is not None


def test_a_table_that_is_not_its_record_s_is_named_and_left_behind(tmp_path: Path) -> None:
    source, whole = put(tmp_path / "a", make(0)), put(tmp_path / "b", make(0))
    table = next((source / "toy" / "samples").iterdir())
    table.write_bytes(write_table([replace(SAMPLES[0], answer="no"), *SAMPLES[1:]]))
    warnings: list[str] = []
    merge([source], tmp_path / "out", warnings.append)
    assert [str(table) in line for line in warnings] == [True]
    assert Store(tmp_path / "out" / "toy", [].append).samples(make(0).cell_id) is None
    merge([whole], tmp_path / "out", warnings.append)
    assert len(Store(tmp_path / "out" / "toy", pytest.fail).samples(make(0).cell_id)) == 3


def test_damaged_records_are_named_left_out_and_kept_in_the_target(tmp_path: Path) -> None:
    source, out = put(tmp_path / "a", make(0)), put(tmp_path / "out", make(0))
    damaged = out / "toy" / "records" / f"{make(0).cell_id}.json"
    damaged.write_text("{")
    warnings: list[str] = []
    merge([source], out, warnings.append)
    assert str(damaged) in warnings[0]
    assert damaged.with_suffix(".bad1").read_text() == "{"
    assert Store(out / "toy", pytest.fail).records() == [make(0)]


def test_folders_without_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results in"):
        merge([tmp_path], tmp_path / "out", pytest.fail)
    source = put(tmp_path / "a", make())
    with pytest.raises(UserError, match="is the target as well as a source"):
        merge([source], source, pytest.fail)


def test_many_conflicts_are_counted_not_listed(tmp_path: Path) -> None:
    one = put(tmp_path / "a", *(make(seed) for seed in range(25)))
    two = put(tmp_path / "b", *(make(seed, score=1.0) for seed in range(25)))
    with pytest.raises(UserError, match="and 5 more"):
        merge([one, two], tmp_path / "out", pytest.fail)
