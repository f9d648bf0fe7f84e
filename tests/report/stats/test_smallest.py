from __future__ import annotations

import subprocess
import sys

import pytest

from vtpbench.report.stats.smallest import smallest_difference


def test_by_hand() -> None:
    # (1.95996 + 0.84162) x sqrt(0.1 / 400) = 2.80158 x 0.0158114
    assert smallest_difference([400]) == pytest.approx(4.4297, abs=1e-4)
    assert smallest_difference([400], [0.8]) == pytest.approx(4.4297 / 0.8, abs=1e-4)


def test_four_times_the_questions_halve_it_and_more_benchmarks_help() -> None:
    assert smallest_difference([4000]) == pytest.approx(smallest_difference([1000]) / 2)
    assert smallest_difference([1000] * 4) == pytest.approx(smallest_difference([1000]) / 2)
    assert smallest_difference([1000], discordance=0.4) == pytest.approx(2 * smallest_difference([1000]))
    assert smallest_difference([1000], power=0.9) > smallest_difference([1000])
    assert smallest_difference([10_000, 200]) > smallest_difference([10_000, 10_000])


def test_two_rows_cannot_differ_by_more_than_they_disagree() -> None:
    assert smallest_difference([24]) is None
    assert smallest_difference([24], discordance=0.4) > 30
    found = [smallest_difference([n]) for n in range(10, 200)]
    first = next(i for i, value in enumerate(found) if value is not None)
    assert all(value is not None and value <= 10 for value in found[first:])


def test_it_imports_nothing_heavy() -> None:
    heavy = {"torch", "scipy", "pandas", "numpy"}
    code = f"import sys, vtpbench.report.stats.smallest; sys.exit(bool({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
