"""A report of a suite is of what the suite names as it stands, under its own labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from vtpbench.harness.cli.main import app
from vtpbench.harness.gather.sources import gather
from vtpbench.harness.gather.suite_records import named
from vtpbench.harness.records.record import BudgetInfo, PrunerInfo, Record
from vtpbench.harness.records.store import Store
from vtpbench.harness.suite.suite import Suite, load
from vtpbench.pruners.registry import build

scripted = SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "scripted_run.py")))

SUITE = """
models: [{label: toy, path: a/b}]
matrix:
  pruners: [random, {label: Early, name: fastv, options: {layer: 1}}]
  budgets: [4]
  benchmarks: [{label: exist, task: exist, folder: tasks, metric: accuracy}]
"""
PLUGIN = """
from dataclasses import dataclass
from vtpbench.pruners.base import Pruner

@dataclass(frozen=True)
class Norm(Pruner):
    file: str = ""

    def score(self, view):
        return view.features[..., 0]

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


def test_models_and_benchmarks_that_are_called_otherwise_now_have_their_new_names(suite: Suite) -> None:
    old = record()
    model = old.model.model_copy(update={"label": "old", "id": "a/b"})
    benchmark = old.benchmark.model_copy(update={"label": "old"})
    (found,) = named(suite, [old.model_copy(update={"model": model, "benchmark": benchmark})])
    assert (found.model.label, found.benchmark.label) == ("toy", "exist")
    assert named(suite, [old, old.model_copy(update={"model": model.model_copy(update={"id": "a/c"})})]) == [old]


def test_an_option_that_is_new_has_its_default_in_older_records(suite: Suite) -> None:
    older = options(layer=1)
    del older["rows"]
    (found,) = named(suite, [record("fastv", "FastV", older)])
    assert found.pruner.label == "Early"


def test_files_that_have_moved_are_the_same(tmp_path: Path) -> None:
    scripted.make_benchmark(tmp_path / "tasks")
    (tmp_path / "norm.py").write_text(PLUGIN)
    (tmp_path / "mine.bin").touch()
    (tmp_path / "other.bin").touch()
    own = [f"{{label: {name}, name: '{tmp_path}/norm.py:Norm', options: {{file: {name}.bin}}}}" for name in ("mine", "other")]
    (tmp_path / "toy.yaml").write_text(SUITE.replace("[random,", f"[random, {', '.join(own)},"))
    before = [record("./norm.py:Norm", "before", {"file": f"weights/{name}.bin"}) for name in ("mine", "other")]
    assert [each.pruner.label for each in named(load(tmp_path / "toy.yaml"), before)] == ["mine", "other"]


def test_seeds_that_are_not_asked_for_are_left_out(suite: Suite) -> None:
    assert named(suite, [record(seed=0), record(seed=1)]) == [record(seed=0)]


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


@pytest.mark.parametrize("breaks", [True, False])
def test_rows_of_a_plugin_that_breaks_or_has_gone_are_known_by_their_label(breaks: bool, tmp_path: Path) -> None:
    scripted.make_benchmark(tmp_path / "tasks")
    name = f"{tmp_path}/norm.py:Norm"
    if breaks:
        (tmp_path / "norm.py").write_text(PLUGIN + "    def __post_init__(self):\n        open('no such file')\n")
    (tmp_path / "toy.yaml").write_text(SUITE.replace("[random,", f"[random, '{name}',"))
    records = [record(), record(name, "Norm"), record(name, "Norm 2")]
    assert named(load(tmp_path / "toy.yaml"), records) == records[:2]


def test_a_report_on_a_folder_runs_nobody_s_code_and_one_on_a_suite_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The records name a pruner file and a task folder that are there, and would leave a mark."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "norm.py").write_text(f"open('ran', 'w').close()\n{PLUGIN}")
    (tmp_path / "utils.py").write_text("open('ran', 'w').close()\n")
    (tmp_path / "toy.yaml").write_text(
        "models: [org/m]\n"
        "matrix: {pruners: ['norm.py:Norm'], budgets: [4], benchmarks: [{label: e, task: e, folder: ., metric: m}]}\n"
    )
    store = Store(tmp_path / "results" / "toy", pytest.fail)
    mine = PrunerInfo(name="norm.py:Norm", label="Norm", options={}, code="0", distribution="file norm.py")
    for number, each in enumerate((record("vanilla"), record().model_copy(update={"pruner": mine}))):
        store.add(each.model_copy(update={"cell_id": f"{number:016x}"}))
    for command in (["report", "results"], ["report", "results", "--format", "html"], ["merge", "results", "--out", "all"]):
        assert CliRunner().invoke(app, command).exit_code == 0
    assert not (tmp_path / "ran").exists()
    CliRunner().invoke(app, ["report", "toy.yaml"])
    assert (tmp_path / "ran").exists()


def test_a_report_says_what_it_leaves_out_and_a_folder_has_everything(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store, warnings = Store(tmp_path / "results" / "toy", print), []
    for number, each in enumerate((record(), record("grid"), record(limit=20))):
        store.add(each.model_copy(update={"cell_id": f"{number:016x}"}))
    assert len(gather(["toy.yaml"], Path("results"), warnings.append).records) == 1
    (line,) = warnings
    assert line.startswith("2 of 3 records are of rows, benchmarks, budgets, limits or seeds that the suite does not name now; ")
    assert len(gather(["results/toy"], Path("results"), warnings.append).records) == 3
    assert len(warnings) == 1
