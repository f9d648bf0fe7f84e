from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from vtpbench.harness.cli import pruner_table
from vtpbench.harness.cli.new_pruner import new_pruner
from vtpbench.harness.cli.pruner_table import PrunerSummary, list_pruners
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.registry import BUILT_IN, PrunerEntry

PLUGIN = Path(__file__).parents[2] / "plugin_package"
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


def install(package: Path, scratch: Path) -> Path:
    """Build a wheel without an index and unpack it, which is all that installing a pure one means; returns the site."""
    source, wheels, site = (scratch / part / package.name for part in ("source", "wheels", "site"))
    shutil.copytree(package, source)
    wheels.mkdir(parents=True)
    subprocess.run([sys.executable, "-c", BUILD, wheels], cwd=source, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    ZipFile(wheel).extractall(site)
    return site


def test_what_is_written(tmp_path: Path):
    files = new_pruner("my-method", tmp_path)
    root = tmp_path / "vtpbench-my-method"
    named = sorted(str(file.relative_to(root)) for file in files)
    assert named == ["README.md", "my_method.py", "pyproject.toml", "tests/test_my_method.py"]
    assert {file for file in root.rglob("*") if file.is_file()} == set(files)
    assert 'my-method = "my_method:MyMethod"' in (root / "pyproject.toml").read_text()
    assert not [file for file in files if "{{" in file.read_text() or "{%" in file.read_text()]


def test_packages_are_installed_found_and_conform(tmp_path: Path):
    pytest.importorskip("setuptools", minversion="77", reason="builds a wheel without an index, so setuptools must be there")
    new_pruner("my-method", tmp_path)
    packages = [PLUGIN, tmp_path / "vtpbench-my-method"]
    sites = [str(install(package, tmp_path)) for package in packages]
    tests = [str(package / "tests") for package in packages]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "-c", os.devnull, *tests],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sites)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_nothing_is_overwritten(tmp_path: Path):
    new_pruner("mine", tmp_path)
    with pytest.raises(UserError, match="vtpbench-mine exists already"):
        new_pruner("mine", tmp_path)


@pytest.mark.parametrize("name", ["", "Mine", "my_method", "2fast", "my--method", "mine-", "../mine", "a b"])
def test_names_that_cannot_be(name: str, tmp_path: Path):
    with pytest.raises(UserError, match="use small letters, digits and single hyphens"):
        new_pruner(name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["lambda", "json", "torch", "fastv"])
def test_names_that_are_taken(name: str, tmp_path: Path):
    with pytest.raises(UserError, match="choose another name"):
        new_pruner(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_list_says_where_each_acts_and_what_it_needs():
    rows = {row.name: row for row in list_pruners()}
    assert BUILT_IN.keys() <= rows.keys()
    assert rows["fastv"] == PrunerSummary(
        "fastv", 2024, "ECCV", "layer 2", "row", "yes", "Chen et al., github.com/pkunlp-icler/FastV", "vtpbench"
    )
    assert (rows["visionzip"].acts_at, rows["visionzip"].needs) == ("before the LLM", "cls, keys")
    assert rows["pyramiddrop"].acts_at == "layer 2, 8, 16"
    assert rows["downsample"].acts_at == "the image"
    assert rows["vanilla"].acts_at == "nowhere"
    assert "no trained checkpoint" in rows["oc-vtp"].needs
    assert all(row.source for row in rows.values())
    published = {row.name for row in rows.values() if row.distribution == "vtpbench" and "et al." in row.source}
    assert {row.name for row in rows.values() if row.year and row.venue} == published


def test_list_says_who_looks_at_the_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = {row.name: row.question for row in list_pruners()}
    assert {name for name in BUILT_IN if rows[name] == "yes"} == {
        "cdpruner",
        "dart",
        "fastv",
        "pyramiddrop",
        "sequence",
        "sparsevlm",
        "trim",
        "vscan",
    }
    assert {rows[name] for name in BUILT_IN} == {"yes", "no"}
    code = """
from dataclasses import dataclass
from typing import ClassVar
from vtpbench.pruners.base import Pruner


@dataclass(frozen=True)
class Asked(Pruner):
    reads_question: ClassVar[bool] = True

    def score(self, view):
        return view.features.sum(dim=-1) * len(view.questions)
"""
    (tmp_path / "asked.py").write_text(code)
    name = f"{tmp_path}/asked.py:Asked"
    monkeypatch.setattr(pruner_table, "entries", lambda: {name: PrunerEntry(name, name, "a file")})
    assert [row.question for row in list_pruners()] == ["yes"]


BROKEN = """\
from dataclasses import dataclass
from vtpbench.pruners.base import Pruner

@dataclass(frozen=True)
class Broken(Pruner):
    source = "nobody"
    def cuts(self, budget, n, shape):
        return {}["no such"]

@dataclass(frozen=True)
class Asking(Pruner):
    source = "nobody"
    weights: str

    def score(self, view):
        return view.features[..., 0]
"""


def test_one_that_breaks_is_a_row_and_the_others_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "own.py").write_text(BROKEN)
    names = [f"{tmp_path}/own.py:Broken", f"{tmp_path}/own.py:Asking"]
    strangers = {name: PrunerEntry(name, name, "theirs") for name in names}
    monkeypatch.setattr(
        pruner_table, "entries", lambda: {**strangers, "random": PrunerEntry("random", BUILT_IN["random"], "vtpbench")}
    )
    rows = {row.name.rpartition(":")[2]: (row.acts_at, row.needs) for row in list_pruners()}
    broken = f"pruner '{names[0]}' broke with KeyError: 'no such', at own.py:8; look into it with: vtpbench check {names[0]}"
    assert rows.pop("Broken") == ("broken", broken)
    assert rows == {"Asking": ("depends on its options", "options"), "random": ("before the LLM", "")}
