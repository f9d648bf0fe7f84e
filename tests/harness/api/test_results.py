"""Suites and their results as data frames."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import vtpbench
from vtpbench.harness.cli.main import app
from vtpbench.pruners.errors import UserError
from vtpbench.report.formats.data import FIELDS

ONLY = {"pruner": ["random", "fastv", "visionzip"], "budget": [16, 48], "benchmark": "demo-choice", "seed": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def results(folder: Path) -> vtpbench.Results:
    return vtpbench.run("demo", out=folder, only=ONLY, limit=4, progress=False, device="cpu")


def test_one_row_a_cell_with_the_columns_of_the_csv(results: vtpbench.Results, folder: Path) -> None:
    frame = results.to_pandas()
    assert list(frame.columns) == [*FIELDS, "suite", "options", "reason"]
    assert len(frame) == len(results) == 7
    assert repr(results) == "<vtpbench.Results 7 cells: 6 ok, 1 infeasible>"
    shown = CliRunner().invoke(app, ["report", str(folder), "--format", "json"])
    told = {row["cell_id"]: row for row in json.loads(shown.stdout)}
    assert set(told) == set(frame.cell_id)
    for row in frame.to_dict("records"):
        for name in ("score", "relative", "observed_tokens", "status", "n", "label"):
            value = told[row["cell_id"]][name]
            assert row[name] == value or (value is None and row[name] != row[name]), name


def test_numbers_are_numbers_and_reasons_are_told(results: vtpbench.Results) -> None:
    frame = results.to_pandas()
    assert frame.dtypes[["score", "relative", "score_low", "observed_tokens"]].eq("float64").all()
    failed = frame[frame.status != "ok"]
    assert list(failed.label) == ["FastV"]
    assert "at least 19 on average" in failed.reason.item()
    assert failed.score.isna().all()
    assert frame[frame.status == "ok"].reason.isna().all()
    assert (frame[frame.pruner == "vanilla"].relative == 100).all()
    assert frame[frame.pruner == "fastv"].options.iloc[0]["layer"] == 1


def test_one_row_a_question_of_chosen_cells(results: vtpbench.Results) -> None:
    frame = results.to_pandas()
    everything = results.samples()
    assert len(everything) == 4 * 6
    chosen = results.samples(frame[frame.pruner == "visionzip"].cell_id)
    assert set(chosen.label) == {"VisionZip"}
    assert sorted(chosen.groupby("budget").tokens.mean()) == [16, 48]
    assert 100 * chosen[chosen.budget == "16"].score.mean() == frame.set_index("cell_id").score[chosen.cell_id.iloc[0]]
    assert {"answer", "target", "prompt"} <= set(chosen.columns)
    assert results.samples([]).empty


def test_tables_are_those_of_the_report(results: vtpbench.Results) -> None:
    assert results.markdown() == results._repr_markdown_()
    assert "| VisionZip " in results.markdown()
    assert results.tables[0].blocks[0].title == "All 144 tokens"


def test_a_second_run_measures_nothing_and_gives_what_it_asks_for(results: vtpbench.Results, folder: Path, capsys) -> None:
    only = ["pruner=random", "seed=0", "budget=16", "benchmark=demo-choice"]
    again = vtpbench.run("demo", out=folder, only=only, settings={"limit": 4}, device="cpu")
    assert sorted(again.to_pandas().label) == ["random", "vanilla"]
    assert set(again.to_pandas().cell_id) < set(results.to_pandas().cell_id)
    assert capsys.readouterr().err == ""


def test_reading_folders_and_suites(results: vtpbench.Results, folder: Path, tmp_path: Path) -> None:
    for found in (vtpbench.read(folder), vtpbench.read(folder / "demo"), vtpbench.read(results=folder)):
        assert set(results.to_pandas().cell_id) <= set(found.to_pandas().cell_id)
    with pytest.raises(UserError, match="no records in"):
        vtpbench.read(results=tmp_path)
    with pytest.raises(UserError, match="no suite file nothing"):
        vtpbench.read("nothing")


def test_mistakes_are_named(folder: Path) -> None:
    with pytest.raises(UserError, match="no suite file dema"):
        vtpbench.run("dema", out=folder)
    with pytest.raises(UserError, match="no cell has this pruner"):
        vtpbench.run("demo", out=folder, only={"pruner": "fastw"})
    with pytest.raises(UserError, match=r"matrix.budgets"):
        vtpbench.run("demo", out=folder, settings={"matrix.budgets": ["x"]})
