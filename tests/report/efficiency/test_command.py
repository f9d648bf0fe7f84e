"""`vtpbench report` where efficiency records are among the sources, alone or beside answers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from vtpbench.harness.cli.main import app
from vtpbench.harness.records.efficiency import EfficiencyRecord
from vtpbench.harness.records.record import Record

SPEED = "results/efficiency/demo"


def report(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["report", *arguments])


def write_answers(folder: Path, records: list[Record]) -> None:
    (folder / "records").mkdir(parents=True, exist_ok=True)
    for record in records:
        (folder / "records" / f"{record.cell_id}.json").write_text(record.dump())


@pytest.fixture
def place(
    record: Callable[..., Record], profiled: Callable[..., EfficiencyRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Working folder with answers of one suite, and speed of the same model."""
    monkeypatch.chdir(tmp_path)
    write_answers(tmp_path / "results/demo", [record("vanilla", score=80.0), record("random", score=60.0)])
    (tmp_path / SPEED).mkdir(parents=True)
    (tmp_path / SPEED / "x.efficiency.json").write_text(profiled(random=(16,), fastv=()).dump())
    return tmp_path


def test_json_carries_both(place: Path) -> None:
    both = json.loads(report("results", "--format", "json").stdout)
    assert [cell["pruner"] for cell in both["cells"]] == ["vanilla", "random"]
    assert [row["accuracy"] for row in both["efficiency"][0]["rows"]] == [100.0, 75.0, None]
    assert isinstance(json.loads(report("results/demo", "--format", "json").stdout), list)
    (alone,) = json.loads(report(SPEED, "--format", "json").stdout)
    assert alone["title"] == "tiny-llava, batch 1, random weights"


def test_csv_is_of_answers_unless_a_source_of_efficiency_alone_is_named(place: Path) -> None:
    answers = report("results", "--format", "csv")
    assert [row["score"] for row in csv.DictReader(io.StringIO(answers.stdout))] == ["80.0", "60.0"]
    assert answers.stderr.count("\n") == 1
    assert "efficiency records are left out of csv; name their folder beside this source" in answers.stderr
    speed = report("results/demo", SPEED, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(speed.stdout)))
    assert [(row["pruner"], row["accuracy"]) for row in rows] == [("vanilla", "100.0"), ("random", "75.0"), ("fastv", "")]
    assert speed.stderr.count("\n") == 1
    assert "answers are left out of csv" in speed.stderr


def test_latex_holds_both(place: Path) -> None:
    text = report("results", "--format", "latex").stdout
    assert text.count(r"\begin{tabular}") == 2
    assert text.count("usepackage") == 1


@pytest.mark.parametrize("options", [["--against", "paper"], ["--samples"], ["--columns", "hard"], ["--reference", "FastV"]])
@pytest.mark.parametrize(
    ("source", "why"),
    [(SPEED, "efficiency records hold no answers"), ("paper", "published figures have no samples of their own")],
)
def test_options_that_look_at_answers_are_refused_where_there_are_none(
    place: Path, options: list[str], source: str, why: str
) -> None:
    failed = report(source, *options)
    assert failed.exit_code == 2
    assert failed.stderr.strip() == f"vtpbench: error: {options[0]}: name a suite or a folder of results as well: {why}"


def test_answers_of_random_weights_enter_no_table(place: Path, record: Callable[..., Record]) -> None:
    model = {"weights": "dummy", "label": "drawn"}
    write_answers(place / "results/demo", [record("vanilla", score=1.0, model=model), record("random", model=model)])
    shown = report("results/demo")
    assert shown.stderr.splitlines() == [
        "vtpbench: warning: records of models with random weights are skipped, 2 in number: their scores mean nothing"
    ]
    assert "drawn" not in shown.stdout
    assert "tiny-llava" in shown.stdout


def test_a_folder_with_answers_of_random_weights_alone_holds_no_records(tmp_path: Path, record: Callable[..., Record]) -> None:
    write_answers(tmp_path / "demo", [record("vanilla", model={"weights": "dummy"})])
    failed = report(str(tmp_path / "demo"))
    assert failed.exit_code == 2
    assert "no records in" in failed.stderr


def without_vanilla(record: EfficiencyRecord) -> EfficiencyRecord:
    return record.model_copy(update={"rows": record.rows[1:]})


def without_rows(record: EfficiencyRecord) -> EfficiencyRecord:
    return record.model_copy(update={"rows": []})


def with_failed_vanilla(record: EfficiencyRecord) -> EfficiencyRecord:
    vanilla = record.rows[0].model_copy(update={"status": "infeasible", "observed": None, "times_ms": {}, "flops": {}})
    return record.model_copy(update={"rows": [vanilla, *record.rows[1:]]})


def without_a_stage(record: EfficiencyRecord) -> EfficiencyRecord:
    times = {stage: times for stage, times in record.rows[1].times_ms.items() if stage != "prefill"}
    return record.model_copy(update={"rows": [record.rows[0], record.rows[1].model_copy(update={"times_ms": times})]})


def with_a_turn_less(record: EfficiencyRecord) -> EfficiencyRecord:
    times = {stage: times[1:] for stage, times in record.rows[1].times_ms.items()}
    return record.model_copy(update={"rows": [record.rows[0], record.rows[1].model_copy(update={"times_ms": times})]})


def without_operations(record: EfficiencyRecord) -> EfficiencyRecord:
    return record.model_copy(update={"rows": [record.rows[0], record.rows[1].model_copy(update={"flops": {}})]})


def with_no_time_at_all(record: EfficiencyRecord) -> EfficiencyRecord:
    times = {stage: [0.0] * len(times) for stage, times in record.rows[1].times_ms.items()}
    return record.model_copy(update={"rows": [record.rows[0], record.rows[1].model_copy(update={"times_ms": times})]})


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (without_rows, "the first row is not vanilla, measured"),
        (without_vanilla, "the first row is not vanilla, measured"),
        (with_failed_vanilla, "the first row is not vanilla, measured"),
        (without_a_stage, "the row random @ 16 is incomplete"),
        (with_a_turn_less, "the row random @ 16 is incomplete"),
        (without_operations, "the row random @ 16 is incomplete"),
        (with_no_time_at_all, "the row random @ 16 is incomplete"),
    ],
)
def test_a_record_that_no_table_can_be_made_of_is_skipped_with_a_line(
    place: Path,
    profiled: Callable[..., EfficiencyRecord],
    damage: Callable[[EfficiencyRecord], EfficiencyRecord],
    told: str,
) -> None:
    (place / SPEED / "y.efficiency.json").write_text(damage(profiled(random=(16,))).dump())
    shown = report(SPEED)
    assert shown.exit_code == 0
    assert shown.stdout.count("## tiny-llava") == 1
    assert len(shown.stderr.strip().splitlines()) == 1
    assert told in shown.stderr
    assert shown.stderr.strip().endswith("it is skipped")
