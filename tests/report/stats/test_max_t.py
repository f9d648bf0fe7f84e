"""Corrections by the largest t: against closed forms, and by simulation."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
from scipy.special import ndtr

from vtpbench.report.stats.draws import Draws, p_value
from vtpbench.report.stats.max_t import may_be_best, step_down

DECISIONS = run_path(str(Path(__file__).parents[3] / "benchmarks" / "stats_decisions.py"))
REPLICATES = 20_000


def gaps(*t: float, seed: int = 0, alike: bool = False) -> list[Draws]:
    """Differences that lie `t` of their standard errors from 0; of independent rows, or of rows that err alike."""
    generator = np.random.default_rng(seed)
    shared = generator.standard_normal(REPLICATES)
    noise = [shared if alike else generator.standard_normal(REPLICATES) for _ in t]
    return [Draws(at, own - np.median(own) + at * own.std(), np.inf, 1.0) for at, own in zip(t, noise, strict=True)]


def two_sided(t: float) -> float:
    return float(2 * ndtr(-abs(t)))


def test_one_comparison_needs_no_correction() -> None:
    for t in (0.3, 1.96, 2.5):
        (gap,) = gaps(t)
        assert step_down([gap]) == pytest.approx([two_sided(t)], abs=0.006)
        assert step_down([gap]) == pytest.approx([p_value(gap)], abs=0.012)


def test_independent_comparisons_are_corrected_as_sidak_does_step_by_step() -> None:
    t = (2.4, -2.0, 0.7, 1.1)
    found = step_down(gaps(*t))
    order = sorted(range(4), key=lambda i: -abs(t[i]))
    for step, i in enumerate(order):
        assert found[i] == pytest.approx(1 - (1 - two_sided(t[i])) ** (4 - step), abs=0.015)


def test_rows_that_err_alike_cost_nothing_which_is_where_holm_pays() -> None:
    found = step_down(gaps(*[2.2] * 10, alike=True))
    assert found == pytest.approx([two_sided(2.2)] * 10, abs=0.005)


def test_correction_keeps_the_order_and_never_makes_a_claim_easier() -> None:
    generator = np.random.default_rng(3)
    for seed in range(5):
        t = generator.normal(0, 2, 6)
        found = step_down(gaps(*t, seed=seed))
        assert all(p >= two_sided(at) - 0.01 for p, at in zip(found, t, strict=True))
        ranks = np.argsort(-np.abs(t))
        assert list(np.array(found)[ranks]) == sorted(found)


def test_few_images_and_differences_without_spread() -> None:
    (gap,) = gaps(2.1)
    few = Draws(gap.estimate, gap.values, 9, 10 / 9)
    assert step_down([few])[0] > 2 * step_down([gap])[0]
    still, same = Draws(3.0, np.full(REPLICATES, 3.0), 9, 10 / 9), Draws(0.0, np.zeros(REPLICATES), 9, 10 / 9)
    assert step_down([still, same]) == [pytest.approx(1 / (REPLICATES + 1)), 1.0]
    assert step_down([]) == []


def test_a_row_may_be_best_unless_another_is_clearly_better() -> None:
    assert may_be_best([])
    assert may_be_best(gaps(-3, -5))
    assert may_be_best(gaps(1.0, -5))
    assert not may_be_best(gaps(4.0, -5))
    assert not may_be_best(gaps(1.8))
    assert may_be_best(gaps(1.8, *[-1] * 8)), "one of nine may look as much better by chance"


def test_error_rates_are_those_that_are_promised() -> None:
    experiments = 100
    small = DECISIONS["Scenario"]((120, 120), 0.8, 6, 0.7)
    found = DECISIONS["simulate"](small, experiments, replicates=300, seed=5)
    for name in ("equal rows: any claim, max-T", "half worse: any false claim, max-T", "one best: left out"):
        assert found[name] <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / experiments), name
    for name in ("on the margin: within", "on the margin: below"):
        assert found[name] <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / experiments), name
    assert found["half worse: found, max-T"] > found["half worse: found, Holm"]
    assert found["smallest difference: seen"] == pytest.approx(0.8, abs=3.5 * np.sqrt(0.8 * 0.2 / experiments))
