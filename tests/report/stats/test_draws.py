"""The bootstrap itself, its intervals and tests."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
from scipy.special import ndtri, stdtrit

from vtpbench.report.stats import bootstrap
from vtpbench.report.stats.bootstrap import replicate
from vtpbench.report.stats.draws import Draws, average, difference, draws, interval, p_value, pooled, relative
from vtpbench.report.stats.metrics import FloatArray
from vtpbench.report.stats.sums import Sums

COVERAGE = run_path(str(Path(__file__).parents[3] / "benchmarks" / "stats_coverage.py"))


def cell(seed: int, units: int = 60, name: str = "image", ratios: int = 1) -> Sums:
    generator = np.random.default_rng(seed)
    above, below = generator.random((units, ratios)), generator.integers(1, 5, (units, ratios)).astype(float)
    return Sums(tuple(f"{name} {i:03}" for i in range(units)), 0, above * below, below, 100.0)


def weights(units: int, replicates: int) -> FloatArray:
    return np.concatenate(list(bootstrap._weights([f"image {i}" for i in range(units)], replicates)))


def normal(freedom: float = np.inf, inflation: float = 1.0, centre: float = 0.0) -> Draws:
    return Draws(centre + ndtri((np.arange(20_000) + 0.5) / 20_000), freedom, inflation)


def test_every_replicate_draws_as_many_units_as_there_are() -> None:
    drawn = weights(50, 4000)
    assert (drawn.sum(1) == 50).all()
    np.testing.assert_allclose(drawn.mean(0), 1, atol=0.1)
    np.testing.assert_allclose(drawn.var(0), 49 / 50, atol=0.15)  # binomial


def test_how_much_is_held_in_memory_changes_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = weights(37, 101)
    monkeypatch.setattr(bootstrap, "CHUNK", 37 * 7)
    np.testing.assert_array_equal(weights(37, 101), whole)


def test_a_cell_is_resampled_alike_whichever_others_are_there() -> None:
    one, two, three = cell(1), cell(2), cell(3, ratios=4)
    together = replicate([one, two, three], 500)
    np.testing.assert_allclose(replicate([three, one], 500), together[:, [2, 0]], rtol=1e-12)


def test_replicates_spread_as_theory_says() -> None:
    one = cell(4, units=400)
    rate = one.above.sum() / one.below.sum()
    error = 100 * np.linalg.norm(one.above - rate * one.below) / one.below.sum()  # delta method
    values = replicate([one], 4000)[:, 0]
    assert values.mean() == pytest.approx(one.score, abs=error / 10)
    assert values.std() == pytest.approx(error, rel=0.05)


def test_benchmarks_on_the_same_images_are_resampled_together_and_others_are_not() -> None:
    same, other = replicate([cell(5)], 2000)[:, 0], replicate([cell(5, name="photo")], 2000)[:, 0]
    np.testing.assert_array_equal(replicate([cell(5)], 2000)[:, 0], same)
    assert abs(np.corrcoef(same, other)[0, 1]) < 0.08


def test_vanilla_itself_is_exactly_100_per_cent_and_the_ratio_carries_its_error() -> None:
    one, two = cell(6), cell(7)
    pruned, vanilla = (draws(column, c) for column, c in zip(replicate([one, two], 1000).T, (one, two), strict=True))
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
    one, two = (Draws(generator.permutation(normal().values), 9, 10 / 9) for _ in range(2))
    both = average([one, two])
    assert (both.freedom, both.inflation) == (pytest.approx(18), pytest.approx(10 / 9))
    assert both.values.std() == pytest.approx(np.sqrt(0.5), rel=0.03)
    still = Draws(np.full(20_000, 100.0), 4, 5 / 4)
    assert average([one, still]).freedom == pytest.approx(9)
    assert average([still, still]).freedom == 4


def test_seeds_share_their_images_so_that_their_mean_gains_no_degrees_of_freedom() -> None:
    seeds = [draws(column, cell(0)) for column in replicate([cell(8), cell(9)], 100).T]
    assert pooled(seeds).freedom == 59
    np.testing.assert_array_equal(pooled(seeds).values, (seeds[0].values + seeds[1].values) / 2)


def test_intervals_cover_the_truth_about_as_often_as_they_promise() -> None:
    experiments = 120
    shares = COVERAGE["coverage"](experiments, images=60, replicates=300, seed=3)
    found = {name: own["as reported"] for name, own in shares.items()}
    assert len(found) == 7
    error = np.sqrt(0.95 * 0.05 / experiments)
    for name, share in found.items():
        assert share > 0.95 - 3.5 * error, name
    assert np.mean(list(found.values())) == pytest.approx(0.95, abs=0.035)
