"""What importing the package costs, and what it gives."""

from __future__ import annotations

import subprocess
import sys

import pytest

import vtpbench

HEAVY = ("torch", "transformers", "numpy", "pandas", "pydantic", "PIL", "lmms_eval")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_loads_nothing_and_takes_no_time() -> None:
    code = f"import sys, time; start = time.perf_counter(); import vtpbench; took = time.perf_counter() - start; print([m for m in {HEAVY} if m in sys.modules], took)"  # noqa: E501
    found, took = run(code).rsplit(" ", 1)
    assert found == "[]"
    assert float(took) < 0.1


def test_names_are_listed_and_found() -> None:
    assert dir(vtpbench) == sorted(vtpbench.__all__)
    for name in vtpbench.__all__:
        assert getattr(vtpbench, name) is not None
        assert name == "__version__" or getattr(vtpbench, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'prune'"):
        vtpbench.prune  # noqa: B018


def test_the_version_and_mistakes_cost_no_torch() -> None:
    assert run("import sys, vtpbench; vtpbench.__version__, vtpbench.UserError; print('torch' in sys.modules)") == "False"


def test_python_runs_the_package() -> None:
    shown = subprocess.run([sys.executable, "-m", "vtpbench", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == f"vtpbench {vtpbench.__version__}"
    wrong = subprocess.run([sys.executable, "-m", "vtpbench", "nothing"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "vtpbench --help" in wrong.stderr
