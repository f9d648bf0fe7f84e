from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

import vtpbench
from vtpbench.harness.cli.main import CommandGroup, app
from vtpbench.harness.run.loop import run

scripted = SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "scripted_run.py")))

SUITE = """
models: [{label: toy, path: checkpoint, dtype: float32}]
matrix:
  pruners: [random]
  budgets: [4]
  benchmarks: [{label: exist, task: exist, folder: tasks, metric: accuracy}]
"""


def call(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Suite whose checkpoint is one of an architecture that no family knows."""
    scripted.make_benchmark(tmp_path / "tasks")
    with (tmp_path / "tasks" / "exist.yaml").open("a") as task:
        task.write("metric_list: [{metric: accuracy}]\n")
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    (tmp_path / "mine.yaml").write_text(SUITE)
    return tmp_path / "mine.yaml"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    run([scripted.make_cell("vanilla"), scripted.make_cell("random")], scripted.make_setting(tmp_path / "results"))
    return tmp_path / "results"


def test_starting_imports_nothing_heavy():
    code = "import sys, vtpbench.harness.cli.main; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "transformers", "lmms_eval", "datasets", "pandas", "pyarrow", "numpy", "pydantic", "yaml", "matplotlib"}
    assert heavy & set(modules) == set()


def test_the_installed_command_shows_its_version():
    script = Path(sys.executable).with_name("vtpbench")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"vtpbench {vtpbench.__version__}\n"


def test_help_names_all_commands():
    result = call("--help")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in ("run", "plan", "report", "list", "check", "new-pruner", "train", "doctor"))


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "limt=3"], "did you mean 'limit'?"),
        (["--set", "matrix.pruners=[randon]"], "did you mean 'random'?"),
        (["--set", "matrix.budgets=[0]"], "a budget must be at least 1 vision token, not 0"),
        (["--dtype", "float61"], "--dtype float61: did you mean 'float16'?"),
        (["--set", "models=[./nowhere]"], "no checkpoint folder"),
        ([], "architecture BertModel is not supported; supported: internvl, llava, llava_next"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(suite: Path, command: str, arguments: list[str], message: str):
    result = call(command, suite, *arguments, "--out", suite.parent / "results")
    assert result.exit_code == 2
    assert result.stderr.startswith("vtpbench: error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (suite.parent / "results").exists()


BROKEN = """\
from dataclasses import dataclass
from vtpbench.pruners.base import Pruner

@dataclass(frozen=True)
class Broken(Pruner):
    def cuts(self, budget, n, shape):
        return {}["no such"]
"""


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("pruner", "message"),
    [
        ("hiprune: {object_layer: 99}", "object_layer 99 is no layer with full attention"),
        ("'broken.py:Broken': {}", "pruner 'broken.py:Broken' broke with KeyError: 'no such', at broken.py:7; look into it"),
    ],
)
def test_what_a_pruner_says_of_the_model_is_told_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, pruner: str, message: str
):
    (tmp_path / "broken.py").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    result = call(command, "demo", "--set", f"matrix={{pruners: [{{{pruner}}}], budgets: [16], benchmarks: [demo-exist]}}")
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_data_of_a_suite_that_needs_none(form: list[str]):
    result = call("data", "efficiency", *form)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == ("[]" if form else "everything is here")


def test_missing_data_are_named_before_a_model_is_looked_at(suite: Path):
    (suite.parent / "tasks" / "data.parquet").unlink()
    result = call("run", suite)
    assert result.exit_code == 2
    assert "benchmark 'exist' needs the data file" in result.stderr


@pytest.mark.parametrize("arguments", [["rnu"], ["run"], ["run", "demo", "--limit", "0"], ["list", "prunners"]])
def test_mistakes_in_the_command_itself_exit_with_2_too(arguments: list[str]):
    assert call(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("command", "told"),
    [("run", "run the same command again to go on"), ("profile", "of the one being measured nothing is kept\n")],
)
def test_an_interrupted_command_says_what_is_kept(command: str, told: str):
    interrupted = typer.Typer(cls=CommandGroup)

    @interrupted.callback()
    def group() -> None: ...

    @interrupted.command(command)
    def work() -> None:
        raise KeyboardInterrupt

    result = CliRunner().invoke(interrupted, [command])
    assert result.exit_code == 130
    assert told in result.stderr


def test_a_defect_of_ours_is_not_taken_for_a_mistake_of_the_user():
    broken = typer.Typer(cls=CommandGroup)

    @broken.callback()
    def group() -> None: ...

    @broken.command()
    def work() -> None:
        raise ValueError("a defect")

    assert isinstance(CliRunner().invoke(broken, ["work"]).exception, ValueError)


@pytest.mark.parametrize(("name", "beginning"), [("markdown", "#"), ("csv", "model,pruner,label,budget"), ("latex", "\\")])
def test_report_prints_every_format(results: Path, name: str, beginning: str):
    result = call("report", results, "--format", name)
    assert result.exit_code == 0, result.stderr
    assert any(line.startswith(beginning) for line in result.stdout.splitlines())


def test_report_is_for_scripts_too(results: Path):
    cells = json.loads(call("report", results / "toy", "--format", "json").stdout)
    assert [(cell["pruner"], cell["relative"], cell["n"]) for cell in cells] == [("vanilla", 100.0, 40), ("random", 100.0, 40)]


def test_report_finds_results_by_itself_and_writes_a_file(results: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(results.parent)
    shown = call("report")
    call("report", "--out", "tables/table.md")
    assert shown.exit_code == 0
    assert Path("tables/table.md").read_text() == shown.stdout != ""


def test_report_takes_columns_and_rows_in_the_order_of_the_suite(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run([scripted.make_cell("grid")], scripted.make_setting(results))
    (tmp_path / "toy.yaml").write_text(SUITE.replace("[random]", "[random, grid]").replace("path: checkpoint", "path: a/b"))
    scripted.make_benchmark(tmp_path / "tasks")
    text = call("report", "toy.yaml").stdout
    assert 0 < text.index("random") < text.index("grid")
    text = call("report", results).stdout
    assert 0 < text.index("grid") < text.index("random")


def test_report_names_a_damaged_record_and_goes_on(results: Path):
    path = next((results / "toy" / "records").iterdir())
    path.write_text(path.read_text().replace("100.0", "101.0"))
    result = call("report", results)
    assert result.exit_code == 0
    assert result.stderr.startswith(f"vtpbench: warning: {path}: the checksum does not match")


def test_report_compares_two_rows_and_decides_at_a_margin(results: Path):
    shown = json.loads(call("report", results, "--between", "random", "vanilla", "--format", "json").stdout)
    assert [(row["one"], row["kind"], row["difference"], row["n"]) for row in shown if row["benchmark"] == "Avg"] == [
        ("random@4", "difference", 0.0, 40)
    ]
    decided = json.loads(call("report", results, "--margin", "2%", "--format", "json").stdout)  # of few images
    assert [(row["label"], row["decision"], row["may_be_best"]) for row in decided if row["without"] is None] == [
        ("random", None, None)
    ]
    text = call("report", results, "--margin", "2").stdout
    assert "decisions at a margin of 2 %" in text
    assert "- **No decision:** exist: " in text


@pytest.mark.parametrize(("ending", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_report_draws_answers(results: Path, tmp_path: Path, ending: str, begins: bytes):
    assert call("report", results, "--out", tmp_path / f"figure.{ending}").exit_code == 0
    assert (tmp_path / f"figure.{ending}").read_bytes().startswith(begins)


def test_a_footer_is_short_in_latex_and_whole_elsewhere_unless_one_says_so(results: Path):
    for options, shown in (((), (True, True)), (("--format", "latex"), (True, False)), (("--footer", "none"), (False, False))):
        text = call("report", results, *options).stdout
        assert tuple(word in text for word in ("mean of the unrounded", "weights ")) == shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no suite file nowhere"),
        (["empty"], "no records in empty; name a folder of results, or measure something first: vtpbench run demo"),
        (["results", "--format", "htm"], "unknown format 'htm'; did you mean 'html'?"),
        (["results", "--out", "results/toy/records"], "cannot write results/toy/records: Is a directory"),
        (["results", "--between", "random@10", "vanila"], "no row 'random@10'; did you mean 'random@4'?"),
        (["results", "--between", "vanilla", "vanilla"], "--between: both names are those of vanilla; give two rows"),
        (["results", "--margin", "half"], "--margin half: give the per cent of vanilla that may be lost"),
        (["results", "--margin", "2%", "--samples"], "are reports of their own; give one of them"),
        (["paper", "--margin", "2%"], "--margin: name a suite or a folder of results as well"),
        (["results", "--margin", "2%", "--format", "latex"], "this is not printed as 'latex'"),
        (["results", "--footer", "shrt"], "unknown footer 'shrt'; did you mean 'short'?"),
        (["results", "--footer", "none", "--format", "csv"], "--footer is for tables on a terminal, in markdown and in latex"),
    ],
)
def test_report_refuses_with_one_line(results: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str):
    monkeypatch.chdir(results.parent)
    Path("empty").mkdir()
    result = call("report", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("kind", "key", "expected"),
    [("pruners", "name", "random"), ("benchmarks", "label", "pope"), ("models", "model_type", "llava")],
)
def test_list_knows_what_can_stand_in_a_suite(kind: str, key: str, expected: str):
    assert expected in [item[key] for item in json.loads(call("list", kind, "--json").stdout)]
    assert expected in call("list", kind).stdout


def test_list_says_of_pruners_where_they_act_and_what_can_be_set():
    rows = {row["name"]: row for row in json.loads(call("list", "pruners", "--json").stdout)}
    assert (rows["fastv"]["acts_at"], rows["fastv"]["needs"], rows["fastv"]["distribution"]) == ("layer 2", "row", "vtpbench")
    assert rows["fastv"]["options"].startswith("layer=2")
    assert "seed" not in rows["random"]["options"]


def test_check_judges_a_pruner():
    result = call("check", "fastv", "--option", "layer=3", "--family", "llava", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["ok"], found["options"]) == (0, True, {"layer": 3})
    assert {row["family"] for row in found["results"]} == {"llava"}


def test_check_says_what_is_broken_and_exits_with_1():
    broken = Path(__file__).parents[1] / "check" / "broken_pruners.py"
    result = call("check", f"{broken}:Unsorted", "--family", "llava")
    assert result.exit_code == 1
    assert "not ascending and unique" in result.stdout
    assert result.stdout.endswith("does not conform\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fastvv"], "did you mean 'fastv'?"),
        (["fastv", "--option", "layers=3"], "did you mean 'layer'?"),
        (["fastv", "--option", "layer"], "--option layer: write key=value, e.g. --option layer=3"),
        (["fastv", "--option", "layer=[3"], "--option layer=[3:1: not valid YAML"),
        (["fastv", "--family", "lava"], "unknown model family 'lava'; did you mean 'llava'?"),
    ],
)
def test_check_refuses_with_one_line(arguments: list[str], message: str):
    result = call("check", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_new_pruner_writes_a_package_and_names_its_files(tmp_path: Path):
    result = call("new-pruner", "my-method", "--out", tmp_path)
    assert result.exit_code == 0
    assert [Path(line) for line in result.stdout.splitlines()] == [
        tmp_path / "vtpbench-my-method" / name
        for name in ("pyproject.toml", "README.md", "my_method.py", "tests/test_my_method.py")
    ]
    again = call("new-pruner", "my-method", "--out", tmp_path)
    assert again.exit_code == 2
    assert "exists already" in again.stderr


def test_status_is_for_people_and_for_scripts(results: Path):
    said = call("status", results)
    assert said.exit_code == 0
    assert "toy: 2 of 2 cells have a result" in said.output
    assert "finished" in said.output
    (folder,) = json.loads(call("status", results, "--json").output)
    assert folder["records"] == {"ok": 2}
    missing = call("status", results / "nowhere")
    assert (missing.exit_code, "no results in" in missing.output) == (2, True)


@pytest.mark.parametrize(
    ("options", "told"),
    [(["--shard", "3"], "3/16"), (["--shard", "1/2", "--workers", "2", "--device", "cpu"], "--shard is for one device")],
)
def test_a_shard_that_makes_no_sense_is_refused_before_anything_is_read(options: list[str], told: str):
    refused = call("run", "nowhere.yaml", *options)
    assert refused.exit_code == 2
    assert told in refused.output
