"""`vtpbench profile` and `vtpbench report` on efficiency records, from the command line."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from vtpbench.harness.cli.main import app

SUITE = """
name: mine
models: [{label: toy, path: hub/toy}]
matrix: {pruners: [grid], budgets: [4], benchmarks: [pope]}
"""


PRUNERS = """
from dataclasses import dataclass
from vtpbench.pruners.base import Pruner

@dataclass(frozen=True)
class Broken(Pruner):
    def score(self, view):
        return view.nothing_such

@dataclass(frozen=True)
class Unhashable(Pruner):
    def fingerprint(self, shape):
        return {}["x"]

    def score(self, view):
        return view.features[..., 0]
"""
DEMO = ("profile", "--model", "demo", "--budget", "16")
QUICK = ("--warmup", 0, "--repeats", 1, "--new-tokens", 2, "--device", "cpu")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File that the demo model's profile with the grid pruner has left."""
    out = tmp_path_factory.mktemp("profile")
    done = call(*DEMO, "--pruner", "grid", "--budget", "50%", *QUICK, "--out", out)
    assert done.exit_code == 0, done.output
    (file,) = out.rglob("*.efficiency.json")
    return file


def test_a_record_names_the_model_as_it_was_asked_for(measured: Path) -> None:
    record = json.loads(measured.read_text())
    assert record["model"]["id"] == "demo"
    assert str(Path(__file__).parents[3]) not in measured.read_text()


@pytest.fixture
def results(measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working folder whose results hold the record as that of a suite."""
    place = tmp_path / "results" / "efficiency" / "mine"
    place.mkdir(parents=True)
    (place / measured.name).write_bytes(measured.read_bytes())
    (tmp_path / "mine.yaml").write_text(SUITE)
    (tmp_path / "theirs.py").write_text(PRUNERS)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


@pytest.mark.parametrize("source", ["results", "mine.yaml", "results/efficiency", "file"])
def test_efficiency_is_found_by_folder_by_suite_and_by_file(results: Path, source: str) -> None:
    shown = call("report", next(results.rglob("*.json")) if source == "file" else source)
    assert shown.exit_code == 0, shown.output
    rows = [[word.strip() for word in line.split("|")[1:4]] for line in shown.stdout.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:]] == ["vanilla", "random", "random", "grid", "grid"]
    assert [row[1:] for row in rows[3:]] == [["16", "16.0"], ["50%", "72.0"], ["16", "16.0"], ["50%", "72.0"]]


def test_published_records_are_shown_only_where_they_are_named(results: Path) -> None:
    published = results / "published"
    published.mkdir()
    (own,) = results.rglob("*.json")
    (published / "theirs.efficiency.json").write_bytes(own.read_bytes())
    own.unlink()
    assert call("report", "results/published").stdout.startswith("## demo")
    assert call("report", "results").exit_code == 2


def test_efficiency_goes_to_machines_and_is_drawn(results: Path) -> None:
    (table,) = json.loads(call("report", "results", "--format", "json").stdout)
    assert [row["pruner"] for row in table["rows"]] == ["vanilla", "random", "random", "grid", "grid"]
    assert call("report", "results", "--format", "png", "--out", "plot.png").exit_code == 0
    assert Path("plot.png").read_bytes().startswith(b"\x89PNG")
    assert call("report", "mine.yaml", "--format", "svg").stdout.startswith("<?xml")


def test_a_damaged_record_is_skipped_with_a_warning(results: Path) -> None:
    (file,) = results.rglob("*.json")
    (file.parent / "cut.efficiency.json").write_bytes(file.read_bytes()[:-40])
    shown = call("report", "results")
    assert shown.exit_code == 0
    assert shown.stderr.count("cut.efficiency.json: not readable as JSON (truncated?)") == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("report", "paper", "--format", "png"), "no measured row has an average accuracy: there is nothing to draw"),
        (("report", "nothing-such"), "nothing-such"),
        (("profile", "--model", "demo", "--pruner", "grid: [", "--budget", "16"), "--pruner grid: [: this is not YAML"),
        (("profile", "efficiency", "--batch", "max", "--device", "cpu"), "--batch max searches the memory of a GPU"),
        (("profile", "--model", "demo", "--pruner", "grd", "--budget", "16"), "did you mean 'grid'?"),
        (("profile", "--model", "demo", "--pruner", "grid", "--budget", "0"), "--budget 0: "),
        (("profile", "--model", "./nowhere", "--pruner", "grid", "--budget", "4"), "no checkpoint folder"),
        (("profile", "--model", "dummy:", "--pruner", "grid", "--budget", "4"), "no configuration '' to draw random weights for"),
        ((*DEMO, "--pruner", "fastv: {layer: 1}", "--pruner", "fastv: {layer: 2}"), "two rows are called 'fastv'; give labels"),
        ((*DEMO, "--pruner", "grid", "--device", "meta"), "device 'meta' holds no values"),
        ((*DEMO[:3], "--pruner", "grid", "--budget", "145"), "budget 145 is larger than the 144 vision tokens of model 'demo'"),
        ((*DEMO, "--pruner", "grid", "--out", "mine.yaml"), "cannot write mine.yaml/efficiency/demo: Not a directory"),
        ((*DEMO, "--pruner", "oc-vtp: {checkpoint: none.safetensors}"), "no OC-VTP checkpoint at none.safetensors; train one"),
        ((*DEMO, "--pruner", "theirs.py:Unhashable"), "broke with KeyError: 'x', at theirs.py:13; look into it with: vtpbench c"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(results: Path, options: tuple[str, ...], told: str) -> None:
    failed = call(*options)
    assert failed.exit_code == 2
    assert told in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1


def test_mistakes_leave_no_folder(results: Path) -> None:
    call(*DEMO, "--pruner", "oc-vtp: {checkpoint: none.safetensors}", "--out", "new")
    assert not Path("new").exists()


def test_a_pruner_that_breaks_fails_its_row_and_the_command_but_not_the_others(results: Path) -> None:
    Path("bad.safetensors").write_text("no weights")
    pruners = ("--pruner", "theirs.py:Broken", "--pruner", "oc-vtp: {checkpoint: bad.safetensors}", "--pruner", "grid")
    failed = call(*DEMO, *pruners, *QUICK)
    assert failed.exit_code == 1
    told = "Broken @ 16: failed: pruner 'theirs.py:Broken' broke with AttributeError: 'TokenView' object has no attribute"
    assert told in failed.stdout
    assert "oc-vtp @ 16: failed: " in failed.stdout
    (file,) = Path("results/efficiency/demo").iterdir()
    assert [row["status"] for row in json.loads(file.read_text())["rows"]] == ["ok", "ok", "failed", "failed", "ok"]


def test_a_dummy_is_called_by_its_configuration_and_says_what_it_has_no_checkpoint_for(results: Path) -> None:
    import vtpbench.harness.models.configs

    shipped = Path(str(vtpbench.harness.models.configs.__file__)).with_name("llava-1.5-7b.json")
    config = json.loads(shipped.read_text())
    pruning_state = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    config["vision_config"] |= {**pruning_state, "num_hidden_layers": 3, "image_size": 56, "projection_dim": 16}
    config["text_config"] |= {**pruning_state, "num_hidden_layers": 3, "num_key_value_heads": 2, "head_dim": 8}
    Path("thin.json").write_text(json.dumps(config))
    done = call("profile", "--model", "dummy:thin.json", "--pruner", "oc-vtp", "--budget", 4, "--picture", "56x56", *QUICK)
    assert done.exit_code == 0, done.output
    (file,) = Path("results/efficiency/thin").iterdir()
    record = json.loads(file.read_text())
    assert (record["model"]["label"], record["model"]["id"]) == ("thin", "dummy:thin.json")
    assert [row["status"] for row in record["rows"]] == ["ok", "ok", "unsupported"]
