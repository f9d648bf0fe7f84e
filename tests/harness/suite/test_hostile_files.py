"""Suites, tasks and checkpoints that somebody damaged or made to hurt: one line that names the file, at once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from time import perf_counter

import pytest
from fuzz_mutations import CONFIG, SUITE, TASK
from typer.testing import CliRunner

from vtpbench.harness.cli.main import app
from vtpbench.harness.suite.suite import load
from vtpbench.pruners.errors import UserError

BOMB = "x-a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"x-{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "x-a: &a {p: 1}\n" + "".join(
    f"x-{b}: &{b} {{<<: [{','.join([f'*{a}'] * 9)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
SUITES = {
    "a date that is none": (SUITE.replace("limit: 5", "limit: 2025-99-99"), 2, "not valid YAML: '2025-99-99' is no timestamp"),
    "a forced type": (SUITE.replace("limit: 5", "limit: !!int abc"), 2, "not valid YAML: 'abc' is no int"),
    "no boolean": (SUITE.replace("limit: 5", "limit: !!bool 5"), 2, "not valid YAML: '5' is no bool"),
    "5,000 digits": (SUITE.replace("limit: 5", f"limit: {'9' * 5000}"), 2, "not valid YAML: '9999"),
    "a long number in base 16": (SUITE.replace("limit: 5", f"limit: 0x{'f' * 5000}"), 2, "not valid YAML: this number is too"),
    "a limit above all": (SUITE.replace("limit: 5", f"limit: {2**40}"), 2, "limit: input should be less than or equal to"),
    "deep": (SUITE.replace("limit: 5", "limit: " + "[" * 900 + "]" * 900), None, "nested too deeply"),
    "less deep": (SUITE.replace("limit: 5", "limit: " + "[" * 100 + "]" * 100), 2, "not valid YAML: nested too deeply"),
    "itself": (SUITE.replace("limit: 5", "limit: &l [*l]"), 2, "not valid YAML: an anchor stands for something that"),
    "itself in a mapping": (SUITE.replace("limit: 5", "x-l: &l {a: {b: *l}}"), 2, "not valid YAML: an anchor stands for"),
    "a bomb of aliases": (BOMB + SUITE.replace("limit: 5", "limit: *i"), None, "values once anchors are written out"),
    "a bomb of merges": (MERGES + SUITE, None, "values once anchors are written out"),
    "a large file": (SUITE + f"x-a: {'x' * 300_000}\n", None, "longer than 262144 characters"),
    "NUL in a name": (SUITE.replace("name: toy", 'name: "a\\0b"'), 1, "not valid YAML: a text holds a NUL or half a character"),
    "NUL in a path": (SUITE.replace("path: checkpoint", 'path: "a\\0b"'), 4, "not valid YAML: a text holds a NUL"),
    "half a character": (SUITE.replace("label: toy", 'label: "\\ud800"'), 4, "not valid YAML: a text holds a NUL or half"),
    "no character": (SUITE.replace("label: toy", 'label: "\\UFFFFFFFF"'), None, "not valid YAML: "),
    "a long path": (SUITE.replace("path: checkpoint", f"path: /{'a' * 5000}"), 4, "no checkpoint folder "),
    "a long folder": (SUITE.replace("folder: tasks", f"folder: {'a' * 5000}"), 9, "no task folder "),
    "infinite scale": (SUITE.replace("scale: 100", "scale: .inf"), 9, "matrix.0.benchmarks.0.scale: input should be "),
    "huge scale": (SUITE.replace("scale: 100", "scale: 1.0e+308"), 9, "matrix.0.benchmarks.0.scale: input should be "),
    "overrides of a list": (SUITE.replace("{test_split: test}", "[1]"), 9, "matrix.0.benchmarks.0.overrides"),
    "overrides of no plain values": (SUITE.replace("{test_split: test}", "{a: !!set {b}}"), 9, "matrix.0.benchmarks.0.overrides"),
    "a task that is a pattern": (SUITE.replace("task: exist", "task: '**'"), 9, "matrix.0.benchmarks.0.task: string should"),
    "a huge budget": (SUITE.replace("[8, 50%]", f"[{2**40}]"), 8, "a budget of "),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint/config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "checkpoint/chat_template.json").write_text('{"chat_template": "<image>"}')
    (tmp_path / "checkpoint/model.safetensors").write_bytes(b"weights")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/exist.yaml").write_text(TASK)
    (tmp_path / "tasks/data.parquet").write_bytes(b"rows")
    (tmp_path / "toy.yaml").write_text(SUITE)
    return tmp_path


def plan(folder: Path, *arguments: str) -> str:
    """Say what `vtpbench plan` says of a mistake."""
    start = perf_counter()
    result = CliRunner().invoke(app, ["plan", str(folder / "toy.yaml"), "--out", str(folder / "results"), *arguments])
    assert perf_counter() - start < 10
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert len(result.stderr.splitlines()) == 1
    return result.stderr.removeprefix("vtpbench: error: ")


def test_the_files_that_are_spoiled_below_are_sound(folder: Path) -> None:
    result = CliRunner().invoke(app, ["plan", str(folder / "toy.yaml"), "--out", str(folder / "results")])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("case", SUITES)
def test_a_suite_that_cannot_be_is_one_line(case: str, folder: Path) -> None:
    text, line, message = SUITES[case]
    (folder / "toy.yaml").write_text(text)
    said = plan(folder)
    assert said.startswith(f"{folder}/toy.yaml{'' if line is None else f':{line}: '}")
    assert message in said
    assert len(said) < 12_000


@pytest.mark.parametrize(
    "setting", ["limit=!!int abc", f"limit={'9' * 5000}", f"models.{'9' * 5000}=1", "models.²=1", "a" + ".a" * 5000 + "=1"]
)
def test_so_is_a_setting_of_the_command_line(setting: str, folder: Path) -> None:
    assert plan(folder, "--set", setting).startswith("--set ")


def test_so_is_a_suite_of_an_impossible_name() -> None:
    for name in ("a" * 5000, "a\0b"):
        with pytest.raises(UserError, match="no suite file"):
            load(name)


TASKS = {
    "a forced type": (TASK.replace("max_new_tokens: 4", "max_new_tokens: !!int abc").encode(), "'abc' is no int"),
    "itself": (f"include: exist.yaml\n{TASK}".encode(), "which includes itself"),
    "itself by another": (f"include: other.yaml\n{TASK}".encode(), "which includes itself"),
    "too many": (f"include: [{', '.join(['leaf.yaml'] * 200)}]\n{TASK}".encode(), "includes more than 100 files"),
    "an include that is a number": (f"include: 5\n{TASK}".encode(), "`include` names files"),
    "an include that is long": (f"include: {'a' * 5000}\n{TASK}".encode(), "File name too long"),
    "an include that is a folder": (f"include: ..\n{TASK}".encode(), "it is no file"),
    "no UTF-8": (TASK.encode() + b"x: \xff\n", "it is not UTF-8 text"),
    "no mapping": (b"# \ntask: exist\n- a\n", "not valid YAML"),
    "path": (TASK.replace("_path: parquet", "_path: [a]").encode(), "dataset_path: input should be a valid string"),
    "kwargs": (TASK.replace("{data_files: {test: data.parquet}}", "5").encode(), "dataset_kwargs: input should be a valid"),
    "data files": (TASK.replace("{test: data.parquet}", "{test: 5}").encode(), "data_files"),
    "no data files": (TASK.replace("{test: data.parquet}", "~").encode(), "names none"),
    "metrics": (TASK.replace("metric_list: [", "metric_list: 5\nx: [").encode(), "metric_list: "),
    "generation": (TASK.replace("temperature: 0", "temperature: [a]").encode(), "generation_kwargs.temperature: "),
    "split": (TASK.replace("test_split: test", "test_split: {a: b}").encode(), None),
}  # fmt: skip


@pytest.mark.parametrize("case", TASKS)
def test_a_task_that_cannot_be_is_one_line(case: str, folder: Path) -> None:
    data, message = TASKS[case]
    (folder / "tasks/exist.yaml").write_bytes(data)
    (folder / "tasks/other.yaml").write_text("include: exist.yaml\n")
    (folder / "tasks/leaf.yaml").write_text("a: 1\n")
    if message is None:  # what the suite overrides wins
        (folder / "toy.yaml").write_text(SUITE.replace("{test_split: test}", "{}"))
    assert (message or "test_split: ") in plan(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [("dataset_kwargs", "5"), ("metric_list", "{}"), ("generation_kwargs", "[1]"), ("test_split", "{}"), ("output_type", "[a]"),
     ("dataset_path", "5"), ("dataset_kwargs", "{data_files: 5}"), ("dataset_kwargs", "{data_files: {test: [[a]]}}")],
)  # fmt: skip
def test_overrides_of_the_wrong_type_are_one_line(key: str, value: str, folder: Path) -> None:
    (folder / "toy.yaml").write_text(SUITE.replace("{test_split: test}", f"{{{key}: {value}}}"))
    assert plan(folder).startswith(
        f"benchmark 'exist': task 'exist': {key.replace('dataset_kwargs', '') if 'data_files' in value else key}"
    )


CONFIGS = {
    "a list": "[]",
    "a number": "5",
    "no JSON": "{",
    "deep": "[" * 100_000,
    "5,000 digits": json.dumps(CONFIG).replace("99", "9" * 5000),
    "half a character": json.dumps({**CONFIG, "a": "\ud800"}),
    "an architecture of another type": json.dumps({"model_type": ["llava"]}),
    "architectures of another type": json.dumps({**CONFIG, "architectures": 5}),
    "a part of another type": json.dumps({**CONFIG, "text_config": "x"}),
    "a number of another type": json.dumps({**CONFIG, "vision_config": {**CONFIG["vision_config"], "patch_size": "x"}}),
    "nothing to divide by": json.dumps({**CONFIG, "vision_config": {**CONFIG["vision_config"], "patch_size": 0}}),
    "more layers than memory": json.dumps({**CONFIG, "text_config": {**CONFIG["text_config"], "num_hidden_layers": 10**12}}),
    "more tokens than memory": json.dumps({**CONFIG, "vision_config": {**CONFIG["vision_config"], "image_size": 10**12}}),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_that_cannot_be_is_one_line(case: str, folder: Path) -> None:
    (folder / "checkpoint/config.json").write_text(CONFIGS[case])
    said = plan(folder)
    assert said.startswith("model 'toy': ")


def test_a_folder_or_a_pipe_in_the_place_of_a_file_is_one_line(folder: Path) -> None:
    (folder / "checkpoint/config.json").unlink()
    os.mkfifo(folder / "checkpoint/config.json")
    assert "config.json" in plan(folder)
    (folder / "checkpoint/config.json").unlink()
    (folder / "checkpoint/config.json").write_text(json.dumps(CONFIG))
    (folder / "tasks/data.parquet").unlink()
    (folder / "tasks/data.parquet").mkdir()
    shown = CliRunner().invoke(app, ["plan", str(folder / "toy.yaml"), "--out", str(folder / "results")])
    assert "needs the data file" in shown.stdout


ENDINGS = ("sys.exit(0)", "raise SystemExit", "raise GeneratorExit", "raise type('Stop', (BaseException,), {})('x')", "exit()")
PRUNER = """\
import sys
from dataclasses import dataclass
from vtpbench.pruners.base import Pruner
{0}

@dataclass(frozen=True)
class Mine(Pruner):
    order: int = 1

    def __post_init__(self):
        {1}

    def cuts(self, budget, n, shape):
        {2}
        return super().cuts(budget, n, shape)

    def score(self, view):
        return view.features.norm(dim=-1)
"""


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_pruner_that_ends_the_program_is_an_error_of_that_pruner(ending: str, place: int, folder: Path) -> None:
    (folder / "mine.py").write_text(PRUNER.format(*(ending if n == place else "pass" for n in range(3))))
    (folder / "toy.yaml").write_text(SUITE.replace("{label: mine, name: fastv, options: {layer: 1}}", f"'{folder}/mine.py:Mine'"))
    assert f"pruner '{folder}/mine.py:Mine'" in plan(folder)


@pytest.mark.parametrize("place", range(3))
def test_the_check_of_such_a_pruner_fails(place: int, folder: Path) -> None:
    (folder / "mine.py").write_text(PRUNER.format(*("sys.exit(0)" if n == place else "pass" for n in range(3))))
    result = CliRunner().invoke(app, ["check", f"{folder}/mine.py:Mine", "--family", "llava"])
    assert result.exit_code != 0
    assert "SystemExit" in result.output
