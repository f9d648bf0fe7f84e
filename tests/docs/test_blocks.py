"""Every block of code on a page is what it says: suites are valid, Python parses and imports what there is, shell parses."""

import ast
import csv
import io
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

from vtpbench.harness.suite.bounded_yaml import read_value
from vtpbench.harness.suite.suite import load
from vtpbench.harness.suite.task_file import TaskConstructor

documents = SimpleNamespace(**run_path(str(Path(__file__).with_name("documents.py"))))
ROOT = documents.ROOT
ELSEWHERE = {"suites.md", "benchmarks.md"}
"""Whose suites are tried beside the code that reads them."""


def each(*languages: str):
    return pytest.mark.parametrize("block", documents.blocks(*languages), ids=str)


def test_every_block_says_what_it_is() -> None:
    known = {"python", "yaml", "sh", "bash", "text", "toml", "csv", "bibtex"}
    assert not [str(block) for block in documents.blocks() if block.language not in known]


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder with what the suites of the pages name: checkpoints, tasks, pruners."""
    here = tmp_path / "here"
    for name in ("my-llava", "adapter", "merged"):
        (here / name).mkdir(parents=True)
    for folder in (here / "task", tmp_path / "own_benchmark" / "task"):
        folder.mkdir(parents=True)
        for name in ("photos.yaml", "utils.py"):
            (folder / name).write_bytes((ROOT / "examples" / "own_benchmark" / "task" / name).read_bytes())
    monkeypatch.chdir(here)
    return here


@each("yaml")
def test_yaml_is_a_suite_or_a_task(block, beside: Path) -> None:
    value = read_value(block.text, "block", TaskConstructor)
    assert isinstance(value, dict)
    if block.page.name in ELSEWHERE or "matrix" not in value:
        return
    for code in (other for other in documents.blocks("python") if other.page == block.page and "(Pruner)" in other.text):
        for name in ("norm.py", "faster.py"):
            if f"./{name}:" in block.text and f"class {name.removesuffix('.py').title()}" in code.text:
                (beside / name).write_text(code.text)
    (beside / "suite.yaml").write_text(block.text)
    assert load(beside / "suite.yaml").matrix


@each("python")
def test_python_parses_and_imports_what_there_is(block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vtpbench"):
            module = import_module(node.module or "")
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]


@each("sh", "bash")
def test_shell_parses(block) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)


@each("csv")
def test_tables_have_as_many_columns_in_every_row(block) -> None:
    assert len({len(row) for row in csv.reader(io.StringIO(block.text))}) == 1


@each("toml")
@pytest.mark.skipif(sys.version_info < (3, 11), reason="the standard library reads TOML from 3.11 on")
def test_toml_parses(block) -> None:
    import tomllib

    assert tomllib.loads(block.text)
