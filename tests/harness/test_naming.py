"""A report of a suite is of what the suite names as it stands, under its own labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest

from vtpbench.harness.naming import named
from vtpbench.harness.record import BudgetInfo, PrunerInfo, Record
from vtpbench.harness.sources import gather
from vtpbench.harness.store import Store
from vtpbench.harness.suite import Suite, load
from vtpbench.pruners.registry import build

scripted = SimpleNamespace(**run_path(str(Path(__file__).with_name("scripted_run.py"))))

SUITE = """
models: [{label: toy, path: a/b}]
matrix:
  pruners: [random, {label: Early, name: fastv, options: {layer: 1}}]
  budgets: [4]
  benchmarks: [{label: exist, task: exist, folder: tasks, metric: accuracy}]
"""


def options(**given: Any) -> dict[str, Any]:
    """All options of FastV."""
    return dataclasses.asdict(build("fastv", given))


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    scripted.make_benchmark(tmp_path / "tasks")
    (tmp_path / "toy.yaml").write_text(SUITE)
    return load(tmp_path / "toy.yaml")


def record(name: str = "random", label: str | None = None, options: dict[str, Any] | None = None, **changes: Any) -> Record:
    cell = scripted.make_cell(name)
    facts = {part: getattr(cell, part) for part in ("model", "budget", "benchmark", "seed")}
    if "limit" in changes:
        facts["benchmark"] = cell.benchmark.model_copy(update={"limit": changes.pop("limit")})
    facts |= {"suite": "toy", "environment": scripted.ENVIRONMENT, "created": "2025-01-01T00:00:00+00:00", "score": 50.0}
    pruner = PrunerInfo(name=name, label=label or name, options=options or {}, code="0", distribution="vtpbench")
    return Record(**{"cell_id": cell.id, "status": "ok", "pruner": pruner, **facts, **changes})


def test_a_row_has_the_label_that_the_suite_gives_it_now(suite: Suite) -> None:
    records = [record("vanilla"), record(), record("fastv", "FastV", options(layer=1))]
    found = named(suite, records)
    assert [each.pruner.label for each in found] == ["vanilla", "random", "Early"]
    assert [each.score for each in found] == [50.0] * 3


@pytest.mark.parametrize(
    "other",
    [
        record("fastv", "Early", options()),
        record("grid"),
        record(budget=BudgetInfo(tokens=8)),
        record(budget=BudgetInfo(ratio=0.5)),
        record(limit=20),
    ],
    ids=["options", "pruner", "budget", "share", "limit"],
)
def test_what_the_suite_does_not_name_is_left_out(other: Record, suite: Suite) -> None:
    assert named(suite, [other, record()]) == [record()]
    assert named(suite, [other]) == [other], "where nothing is as the suite says, a trial with other settings is shown"


def test_the_matrix_of_the_model_decides(tmp_path: Path) -> None:
    scripted.make_benchmark(tmp_path / "tasks")
    two = SUITE.replace("a/b}", "a/b}, {label: other, path: a/c}").replace("  pruners", "  models: [other]\n  pruners")
    (tmp_path / "toy.yaml").write_text(two)
    other = record(model=scripted.make_model("other"))
    assert named(load(tmp_path / "toy.yaml"), [record(), other]) == [other]


def test_a_plugin_that_has_gone_takes_only_its_own_rows_with_it(tmp_path: Path) -> None:
    scripted.make_benchmark(tmp_path / "tasks")
    (tmp_path / "toy.yaml").write_text(SUITE.replace("[random,", f"[random, '{tmp_path}/gone.py:Mine',"))
    assert named(load(tmp_path / "toy.yaml"), [record(), record(f"{tmp_path}/gone.py:Mine", "Mine")]) == [record()]


def test_a_report_says_what_it_leaves_out_and_a_folder_has_everything(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store, warnings = Store(tmp_path / "results" / "toy", print), []
    for number, each in enumerate((record(), record("grid"), record(limit=20))):
        store.add(each.model_copy(update={"cell_id": f"{number}"}))
    assert len(gather(["toy.yaml"], Path("results"), warnings.append).records) == 1
    (line,) = warnings
    assert line.startswith("2 of 3 records are of rows, budgets or limits that the suite does not name now; `vtpbench report ")
    assert len(gather(["results/toy"], Path("results"), warnings.append).records) == 3
    assert len(warnings) == 1
