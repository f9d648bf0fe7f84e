import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from folder_graph import classes, graph, imported, order, sources

ROOT = Path(__file__).parents[1]
SOURCES = sources()


def foreign(file: Path) -> set[str]:
    """First parts of the modules that a file imports from other packages."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.split(".")[0] for name in plain | {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}}


def own_imports(folder: str) -> dict[Path, set[str]]:
    return {file: imported(file) for file in SOURCES if file.is_relative_to(ROOT / folder)}


def test_no_folders_import_each_other_in_a_circle() -> None:
    order(graph())


def test_every_class_name_stands_once() -> None:
    assert not {name: places for name, places in classes().items() if len(places) > 1}


def test_pruners_know_nothing_of_the_harness_or_the_report() -> None:
    for file, modules in own_imports("pruners").items():
        assert all(m.startswith("vtpbench.pruners") for m in modules), file


def test_reports_read_records_only() -> None:
    allowed = (
        "vtpbench.report",
        "vtpbench.harness.records.record",
        "vtpbench.harness.records.efficiency",
        "vtpbench.pruners.errors",
    )
    for file, modules in own_imports("report").items():
        assert all(m.startswith(allowed) for m in modules), file


def test_the_python_api_and_the_command_line_are_imported_by_nobody() -> None:
    for top in ("harness/api", "harness/cli"):
        own = f"vtpbench.{top.replace('/', '.')}"
        users = {file for file in SOURCES if any(module.startswith(own) for module in imported(file))}
        assert all(file.is_relative_to(ROOT / top) for file in users), users


def test_the_harness_knows_no_single_pruner() -> None:
    shared = {"base", "registry", "errors", "budget", "lazy", "vanilla", "transfer"}  # vanilla is every comparison's denominator
    named_on_purpose = {"train.py"}  # the command that trains OC-VTP
    for file, modules in own_imports("harness").items():
        pruners = {m.split(".")[2] for m in modules if m.startswith("vtpbench.pruners.")}
        assert pruners <= shared or file.name in named_on_purpose, (file, pruners)
        assert not any(m.startswith("vtpbench.suites.") for m in modules), file


def test_lmms_eval_is_imported_in_one_place_beside_where_it_finds_the_model_and_where_its_scorers_are_asked() -> None:
    users = {file.name for file in SOURCES if any(name == "lmms_eval" for name in foreign(file))}
    task = "mmbench_cn.py"  # lmms-eval itself imports it
    assert users == {"lmms_library.py", "lmms_plugin.py", "sample_scores.py", task}


ENVIRONMENT = r"os\.environ"


@pytest.mark.parametrize("pattern", [r"\.forward\s*=[^=]", "MethodType", r"(?<!__)\bsetattr\(", ENVIRONMENT])
def test_nothing_is_patched_and_nothing_is_configured_by_environment(pattern: str) -> None:
    # What others' libraries will do with the environment, here or in a process that is started.
    reporting = {"doctor.py", "hub.py", "launcher.py", "task_support.py", "scoring_process.py"}
    files = [file for file in SOURCES if pattern != ENVIRONMENT or file.name not in reporting]
    assert not [file.name for file in files if re.search(pattern, file.read_text())]


def test_the_command_line_starts_without_heavy_imports() -> None:
    heavy = ("torch", "transformers", "lmms_eval", "pandas", "pyarrow", "numpy")
    code = f"import sys, vtpbench.harness.cli.main; print([m for m in {heavy!r} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_importing_the_package_has_no_effects() -> None:
    code = "import logging, sys; import vtpbench; print(len(logging.root.handlers), 'torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["0", "False"]


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_the_map_of_the_code_names_files_that_are_there(page: str) -> None:
    named = set(re.findall(r"`([\w./]+/[\w.]*)`", (ROOT / page).read_text()))
    assert len(named) > 10
    assert not [name for name in named if not ((ROOT / name).exists() or (ROOT / "harness" / name).exists())]
