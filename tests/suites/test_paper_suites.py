"""The suites for models of published sizes: valid, and runnable with another model and other data in their places."""

from __future__ import annotations

import json
from pathlib import Path
from runpy import run_path

import pytest
from rich.console import Console

from vtpbench.harness.gather.sources import gather
from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.run.job import RunOptions, execute, make_job
from vtpbench.harness.run.progress import make_progress
from vtpbench.harness.suite.suite import load
from vtpbench.report.formats.markdown import markdown
from vtpbench.report.stats.build import build
from vtpbench.report.tables.settings import require_comparable

TABLES = {
    "llava15": (10, 9),
    "all_methods": (10, 24),
    "llavanext": (6, 9),
    "qwen25vl": (4, 8),
    "qwen3vl": (5, 11),
    "internvl3": (5, 12),
    "onevision": (6, 10),
    "quick": (5, 8),
    "fragile": (6, 8),
}
"""Benchmarks and rows of each."""


@pytest.fixture(scope="module")
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """Overrides that point each benchmark's official task at a few rows in its published columns."""
    write = run_path(str(request.config.rootpath / "tests/harness/official/official_data.py"))["write"]
    labels = dict.fromkeys((*load("llava15").benchmarks, *load("fragile").benchmarks))
    return {label: write(label, tmp_path_factory.mktemp(label)) for label in labels}


@pytest.mark.parametrize("name", TABLES)
def test_the_suite_is_valid(name: str) -> None:
    suite = load(name)
    (matrix,) = suite.matrix
    assert (len(suite.benchmarks), len(matrix.pruners)) == TABLES[name]
    floors = {"random", "pool" if name == "onevision" else "downsample"}  # a ranking without floors shows little
    assert floors <= {pruner.name for pruner in matrix.pruners}
    assert matrix.seeds == (0, 1, 2)


@pytest.mark.parametrize("name", [name for name in TABLES if name != "onevision"])  # its own family runs it below
def test_the_suite_runs_with_the_embedded_model(
    name: str, data: dict[str, dict[str, object]], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model = {"label": "demo", "path": str(request.config.rootpath / "suites/demo/model"), "dtype": "float32"}
    places = {
        "models": [model],
        "matrix.budgets": ["11.1%"],
        "matrix.seeds": [0],
        **{f"matrix.benchmarks.{n}": {label: {"overrides": data[label]}} for n, label in enumerate(load(name).benchmarks)},
    }
    settings = [f"{key}={json.dumps(value)}" for key, value in places.items()]
    job = make_job(name, RunOptions(tmp_path, ("pruner=random", "pruner=visionzip"), settings), lambda line: None)
    with (tmp_path / "log").open("w") as log:
        summary = execute(job, "cpu", make_progress(Console(file=log)))
    assert summary.exit_code == 0, (tmp_path / "log").read_text()
    found = gather([str(tmp_path)], tmp_path, lambda line: None)
    require_comparable(found.records)
    (table,) = build(found.records, found.benchmarks, found.pruners, found.samples)
    assert len(table.columns) == TABLES[name][0]
    assert {row.label for block in table.blocks for row in block.rows} == {"vanilla", "random", "VisionZip"}
    assert all(entry.score is not None for block in table.blocks for row in block.rows for entry in row.entries)
    assert all(f" {label} " in markdown((table,)) for label in job.suite.benchmarks)


@pytest.mark.parametrize(
    ("name", "family", "budget"),
    [("qwen3vl", "qwen3_vl", "33.3%"), ("internvl3", "internvl", "50%"), ("onevision", "llava_onevision", "33.3%")],
)
def test_the_suite_runs_with_a_checkpoint_of_its_family(
    name: str, family: str, budget: str, data: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    tiny, folder = TINY[family](), tmp_path / "tiny"
    for part in (tiny.model, tiny.image_processor, tiny.tokenizer):
        part.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(tiny.chat_template)
    places = {
        "models": [{"label": "tiny", "path": str(folder), "dtype": "float32", "preprocessing": tiny.preprocessings[-1]}],
        "matrix.budgets": [budget],
        "matrix.seeds": [0],
        "matrix.benchmarks": [{"pope": {"overrides": data["pope"]}}],
    }
    settings = [f"{key}={json.dumps(value)}" for key, value in places.items()]
    chosen = tuple(f"pruner={name}" for name in ("random", "fastv", "sparsevlm", "visionzip"))
    job = make_job(name, RunOptions(tmp_path / "out", chosen, settings), lambda line: None)
    with (tmp_path / "log").open("w") as log:
        summary = execute(job, "cpu", make_progress(Console(file=log)))
    assert summary.exit_code == 0, (tmp_path / "log").read_text()
    found = gather([str(tmp_path / "out")], tmp_path, lambda line: None)
    assert {record.model.family for record in found.records} == {family}
    assert {record.benchmark.generation["max_new_tokens"] for record in found.records} == {128}
