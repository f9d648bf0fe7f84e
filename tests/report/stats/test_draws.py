"""The bootstrap itself, its intervals and tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
from scipy.special import betaincinv, ndtri, stdtrit

from vtpbench.report.stats import bootstrap
from vtpbench.report.stats.bootstrap import replicate
from vtpbench.report.stats.draws import Draws, average, difference, draws, interval, p_value, pooled, relative
from vtpbench.report.stats.metrics import FloatArray
from vtpbench.report.stats.sums import Sums

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
COVERAGE = run_path(str(BENCHMARKS / "stats_coverage.py"))
CASES = run_path(str(BENCHMARKS / "stats_coverage_cases.py"))


def cell(seed: int, units: int = 60, name: str = "image", ratios: int = 1) -> Sums:
    generator = np.random.default_rng(seed)
    above, below = generator.random((units, ratios)), generator.integers(1, 5, (units, ratios)).astype(float)
    question = np.ones((2, ratios))
    return Sums(tuple(f"{name} {i:03}" for i in range(units)), 0, above * below, below, question, 100.0)


def replicates(*cells: Sums, number: int = 2000) -> FloatArray:
    return replicate([f"row {i}" for i in range(len(cells))], cells, number)


def normal(freedom: float = np.inf, inflation: float = 1.0, centre: float = 0.0) -> Draws:
    return Draws(centre, centre + ndtri((np.arange(20_000) + 0.5) / 20_000), freedom, inflation)


def test_how_much_is_held_in_memory_changes_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = replicates(cell(1), number=101)
    monkeypatch.setattr(bootstrap, "CHUNK", 101 * 7)
    np.testing.assert_allclose(replicates(cell(1), number=101), whole, rtol=1e-12)


def test_a_cell_is_resampled_alike_whichever_others_are_there() -> None:
    one, two, three = cell(1), cell(2), cell(3, ratios=4)
    together = replicate(["one", "two", "three"], [one, two, three], 500)
    np.testing.assert_allclose(replicate(["three", "one"], [three, one], 500), together[:, [2, 0]], rtol=1e-12)


def test_replicates_spread_as_theory_says() -> None:
    one = cell(4, units=400)
    rate = one.above.sum() / one.below.sum()
    error = 100 * np.linalg.norm(one.above - rate * one.below) / one.below.sum()  # delta method
    values = replicates(one, number=4000)[:, 0]
    assert values.mean() == pytest.approx(one.score, abs=error / 10)
    assert values.std() == pytest.approx(error, rel=0.05)


def test_images_that_benchmarks_share_have_one_weight_and_others_have_their_own() -> None:
    one, part = cell(5), cell(5)
    units = tuple(f"image {i:03}" for i in range(30)) + tuple(f"photo {i:03}" for i in range(30))
    cells = one, replace(part, units=units), cell(5, name="photo")
    same, shared, other = (replicates(own)[:, 0] for own in cells)
    np.testing.assert_array_equal(replicates(one)[:, 0], same)
    assert abs(np.corrcoef(same, other)[0, 1]) < 0.08
    assert np.corrcoef(same, shared)[0, 1] == pytest.approx(0.5, abs=0.2)


def right(n: int, of: int) -> Sums:
    above = (np.arange(of) < n).astype(float)[:, None]
    return Sums(tuple(f"image {i:04}" for i in range(of)), 0, above, np.ones((of, 1)), np.ones((2, 1)))


@pytest.mark.parametrize(("n", "of"), [(76, 80), (80, 80), (0, 80), (1, 200), (30, 60)])
def test_a_share_of_questions_has_jeffreys_interval(n: int, of: int) -> None:
    low, high = interval(draws(replicates(right(n, of), number=20_000)[:, 0], right(n, of)))
    bounds = betaincinv(n + 0.5, of - n + 0.5, [0.025, 0.975])
    jeffreys = [0.0 if n == 0 else bounds[0], 1.0 if n == of else bounds[1]]
    wider = 0.07 * (jeffreys[1] - jeffreys[0])  # as Student's interval is
    assert [low, high] == pytest.approx(jeffreys, abs=wider)
    assert low <= n / of <= high


def test_rows_that_agree_on_all_questions_may_differ_on_others() -> None:
    pruned, vanilla = (draws(column, right(80, 80)) for column in replicates(right(80, 80), right(80, 80)).T)
    low, high = interval(relative(pruned, vanilla))
    assert 100 - 100 * 3.7 / 80 < low < 100 - 100 * 1.5 / 80
    assert 100 + 100 * 1.5 / 80 < high < 100 + 100 * 3.7 / 80
    assert p_value(difference(pruned, vanilla)) == 1


def test_vanilla_itself_is_exactly_100_per_cent_and_the_ratio_carries_its_error() -> None:
    one, two = cell(6), cell(7)
    pruned, vanilla = (draws(column, c) for column, c in zip(replicates(one, two).T, (one, two), strict=True))
    assert interval(relative(vanilla, vanilla)) == (100, 100)
    assert p_value(difference(pruned, pruned)) == 1
    numerator_alone = 100 * pruned.values / two.score
    assert relative(pruned, vanilla).values.std() > 1.1 * numerator_alone.std()


def test_interval_is_normal_for_many_units_and_students_for_few() -> None:
    assert interval(normal()) == pytest.approx((-1.96, 1.96), abs=0.001)
    wide = stdtrit(9, 0.975) * np.sqrt(10 / 9)
    assert interval(normal(9, 10 / 9)) == pytest.approx((-wide, wide), abs=0.01)
    assert interval(normal(), 0.5) == pytest.approx((-0.6745, 0.6745), abs=0.001)


@pytest.mark.parametrize(("freedom", "inflation"), [(np.inf, 1.0), (19.0, 20 / 19), (9.0, 10 / 9)])
def test_p_is_5_per_cent_where_the_interval_touches_0(freedom: float, inflation: float) -> None:
    low, _ = interval(normal(freedom, inflation))
    for sign in (1, -1):
        assert p_value(normal(freedom, inflation, centre=-sign * low)) == pytest.approx(0.05, abs=0.002)
    assert p_value(normal(freedom, inflation)) == pytest.approx(1, abs=0.001)
    assert 0 < p_value(normal(freedom, inflation, centre=100)) < 0.01


def test_average_adds_degrees_of_freedom_by_welch_and_satterthwaite() -> None:
    generator = np.random.default_rng(0)
    one, two = (Draws(0.0, generator.permutation(normal().values), 9, 10 / 9) for _ in range(2))
    both = average([one, two])
    assert (both.freedom, both.inflation) == (pytest.approx(18), pytest.approx(10 / 9))
    assert both.values.std() == pytest.approx(np.sqrt(0.5), rel=0.03)
    still = Draws(100.0, np.full(20_000, 100.0), 4, 5 / 4)
    assert average([one, still]).freedom == pytest.approx(9)
    assert average([still, still]).freedom == 4


def seeds(scores: Sequence[float], luck: float = 0.1, row: str = "random", seed: int = 0) -> Draws:
    """Mean over three seeds of these scores, whose questions have luck of their own."""
    generator = np.random.default_rng(seed)
    shared = generator.normal(0, 0.3, 20_000)
    runs = [Draws(at, at + shared + generator.normal(0, luck, 20_000), 1e6, 1.0) for at in scores]
    return pooled(row, dict(enumerate(runs)))


def half(d: Draws) -> float:
    low, high = interval(d)
    return (high - low) / 2


def test_seeds_share_their_images_so_that_their_mean_gains_no_degrees_of_freedom() -> None:
    runs = {i: draws(column, cell(0)) for i, column in enumerate(replicates(cell(8), cell(9)).T)}
    mean = pooled("random", runs)
    assert mean.freedom == 59
    np.testing.assert_allclose(mean.values, (runs[0].values + runs[1].values) / 2)


def test_few_seeds_that_differ_widen_the_interval_as_student_has_it() -> None:
    scores = (-5.0, 1.0, 4.0)
    assert half(seeds(scores)) == pytest.approx(stdtrit(2, 0.975) * np.std(scores, ddof=1) / np.sqrt(3), rel=0.05)


def test_seeds_that_differ_no_more_than_the_luck_of_their_questions_widen_nothing() -> None:
    alone = seeds((0.0,))
    assert half(seeds((-0.1, 0.0, 0.1), luck=0.15)) == pytest.approx(half(alone), rel=0.1)
    assert seeds((0.0,)).seeds == {}


def test_seeds_move_a_row_alike_on_all_benchmarks_and_in_all_differences() -> None:
    one, same, opposite = seeds((-5.0, 1.0, 4.0)), seeds((-5.0, 1.0, 4.0), seed=1), seeds((5.0, -1.0, -4.0), seed=2)
    assert half(average([one, same])) == pytest.approx(half(one), rel=0.1)
    assert half(average([one, opposite])) < 0.1 * half(one)
    assert half(difference(one, same)) < 0.1 * half(one)
    rows = difference(one, seeds((-5.0, 1.0, 4.0), row="another", seed=1))
    assert half(rows) > 1.2 * half(one)


def test_intervals_cover_the_truth_about_as_often_as_they_promise() -> None:
    experiments = 120
    shares = COVERAGE["coverage"](experiments, images=60, replicates=300, seed=3)
    found = {name: own["as reported"] for name, own in shares.items()}
    assert len(found) == 7
    error = np.sqrt(0.95 * 0.05 / experiments)
    for name, share in found.items():
        assert share > 0.95 - 3.5 * error, name
    assert np.mean(list(found.values())) == pytest.approx(0.95, abs=0.035)


def test_intervals_of_few_questions_near_a_ceiling_cover_the_truth_as_often_as_others() -> None:
    def at_the_ceiling(generator: np.random.Generator, name: str, number: int) -> dict[str, tuple[Draws, float]]:
        return CASES["pair"](generator, name, (0.97, 0.95), 80, number)

    missed = CASES["coverage"](at_the_ceiling, 200, replicates=300, seed=1)
    assert missed.keys() == {"score", "relative"}
    for above, below, _ in missed.values():
        assert above + below < 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 200), "drawing images with replacement misses 10 and 15 %"
