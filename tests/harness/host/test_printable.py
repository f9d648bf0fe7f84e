from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from vtpbench.harness.cli.main import app
from vtpbench.harness.host.console import warn
from vtpbench.harness.host.display import Display
from vtpbench.harness.host.printable import one_line, printable
from vtpbench.harness.records.samples import table_hash
from vtpbench.harness.records.store import Store
from vtpbench.harness.run.loop import run

scripted = SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "scripted_run.py")))
ROOT = Path(__file__).parents[3]
ACTING = "\x1b[31m \x9b2J \x07 \x08 \r \x7f \u202e \u2066 \u2028 \U000e0001 \ud800"
FOUND = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\U000e0001\ud800]")
LABEL = "\x1b]0;owned\x07\x1b[31mred\x9b2J\u202egnp"


def test_what_a_terminal_would_act_upon_is_spelled_out() -> None:
    assert not FOUND.search(printable(ACTING))
    assert printable("\x1b[31m") == "\\u001b[31m"
    assert printable("é 漢 \U0001f600 ±\n\tx") == "é 漢 \U0001f600 ±\n\tx"


def test_json_means_the_same_afterwards() -> None:
    text = json.dumps({ACTING: [ACTING]}, ensure_ascii=False)
    assert json.loads(printable(text)) == {ACTING: [ACTING]}


def test_a_name_cannot_pass_for_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert one_line("a\nb") == "a\\nb"
    warn("of x\nvtpbench: error: forged")
    assert capsys.readouterr().err.splitlines() == ["vtpbench: warning: of x", "  vtpbench: error: forged"]


def test_the_lines_of_a_display_are_harmless() -> None:
    stream = io.StringIO()
    Display(Console(file=stream, width=200)).note(f"{LABEL}\nforged")
    assert not FOUND.search(stream.getvalue())
    assert stream.getvalue().count("\n") == 1


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results whose labels and texts hold what a terminal would act upon."""
    run([scripted.make_cell("vanilla"), scripted.make_cell("random")], scripted.make_setting(tmp_path / "results"))
    store = Store(tmp_path / "results" / "toy", pytest.fail)
    for record in store.records():
        pruner = record.pruner.model_copy(update={"label": f"{LABEL} {record.pruner.name}"})
        versions = record.environment.model_copy(update={"device": LABEL, "versions": {LABEL: LABEL}})
        benchmark = record.benchmark.model_copy(update={"label": LABEL, "task": LABEL})
        facts = {"pruner": pruner, "environment": versions, "benchmark": benchmark}
        assert record.samples_sha256 == table_hash(store.samples_path(record.cell_id).read_bytes())
        store.add(record.model_copy(update=facts))
    return tmp_path / "results"


@pytest.mark.parametrize("format_", ["markdown", "csv", "json", "latex"])
def test_reports_on_hostile_labels_are_harmless_on_a_pipe_and_in_a_file(results: Path, tmp_path: Path, format_: str) -> None:
    shown = CliRunner().invoke(app, ["report", str(results), "--format", format_])
    assert shown.exit_code == 0, shown.output
    assert not FOUND.search(shown.output.replace("\n", ""))
    CliRunner().invoke(app, ["report", str(results), "--format", format_, "--out", str(tmp_path / "file")])
    assert (tmp_path / "file").read_text() == shown.stdout
    if format_ == "json":
        assert {cell["benchmark"] for cell in json.loads(shown.stdout)} == {LABEL}
    if format_ == "csv":
        assert len(list(csv.DictReader(io.StringIO(shown.stdout)))) == 2


def test_file_names_and_contents_in_warnings_are_harmless(results: Path) -> None:
    store = results / "toy" / "records"
    (store / "\x1b[31mred.json").write_text("{")
    next(store.glob("[0-9a-f]*.json")).write_text('{"schema_version": "\\u001b[2J\\u009b"}')
    shown = CliRunner().invoke(app, ["report", str(results)])
    assert "\\u001b[31mred.json" in shown.stderr
    assert not FOUND.search(shown.output.replace("\n", ""))


def test_mistakes_that_quote_a_suite_are_harmless(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        'models: [org/m]\nmatrix: {pruners: ["\\e[31mrandom\\x9b"], budgets: [4], benchmarks: [pope]}\n'
    )
    for command in (
        ["plan", str(tmp_path / "a.yaml")],
        ["plan", "\x1b[31m"],
        ["show", "\x1b[31m", "--model", "demo"],
        ["\x1b[2J"],
    ):
        shown = CliRunner().invoke(app, command)
        assert shown.exit_code == 2
        assert not FOUND.search(shown.output.replace("\n", ""))


def test_commands_print_in_one_way() -> None:
    files = [file for room in ("harness", "report") for file in (ROOT / room).rglob("*.py") if file.name != "console.py"]
    assert not [file for file in files if re.search(r"typer\.s?echo|click\.s?echo|(?<![.\w])print\(", file.read_text())]
