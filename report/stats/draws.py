"""Intervals and tests from bootstrap replicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from vtpbench.report.stats.metrics import FloatArray
from vtpbench.report.stats.seed_spread import Seeds, add_seeds, seed_noise
from vtpbench.report.stats.sums import Sums, welch
from vtpbench.report.tables.conventions import LEVEL


@dataclass(frozen=True)
class Draws:
    """Replicates of one number, and how much they can be trusted."""

    estimate: float
    """The number itself."""
    values: FloatArray
    """Replicates under other images and questions; shape (replicates,)."""
    freedom: float
    """Degrees of freedom of their spread: see `Sums.freedom`."""
    inflation: float
    """By how much their variance is too small: (units + 1) / (units - 1)."""
    seeds: Mapping[Seeds, FloatArray] = field(default_factory=dict)
    """Of each row with several seeds, how far the number would be moved by one seed alone; shape (replicates, seeds)."""

    @property
    def units(self) -> int:
        """Number of units behind a number of one benchmark."""
        return round((self.inflation + 1) / (self.inflation - 1))

    @cached_property
    def replicates(self) -> FloatArray:
        """Replicates under other images, questions and seeds; shape (replicates,)."""
        found: FloatArray = self.values + sum(seed_noise(which, own, self.inflation) for which, own in self.seeds.items())
        return found


def draws(values: FloatArray, cell: Sums) -> Draws:
    """Describe the replicates of a cell's score."""
    units = cell.below.any(1).sum()
    return Draws(cell.score, values, cell.freedom, float((units + 1) / (units - 1)))


def pooled(row: str, seeds: Mapping[int, Draws]) -> Draws:
    """Mean over the seeds of a row, which share their units; `row` is its name, the same on all benchmarks."""
    parts = [seeds[seed] for seed in sorted(seeds)]
    values = np.stack([d.values for d in parts], axis=1)
    mean = values.mean(1)
    apart = {(row, tuple(sorted(seeds))): values - mean[:, None]} if len(parts) > 1 else {}
    return replace(_fewest(parts), estimate=float(np.mean([d.estimate for d in parts])), values=mean, seeds=apart)


def relative(score: Draws, vanilla: Draws, higher_is_better: bool = True) -> Draws:
    """Per cent of vanilla, both resampled together, as `vtpbench.report.tables.rounding.relative` has it."""
    start, sign = (0, 1) if higher_is_better else (200, -1)
    return replace(
        _fewest([score, vanilla]),
        estimate=start + sign * 100 * (score.estimate / vanilla.estimate),
        values=start + sign * 100 * (score.values / vanilla.values),
        seeds={which: sign * 100 * (own / vanilla.values[:, None]) for which, own in score.seeds.items()},
    )


def difference(one: Draws, other: Draws) -> Draws:
    """Paired difference of two numbers on one benchmark."""
    return replace(
        _fewest([one, other]),
        estimate=one.estimate - other.estimate,
        values=one.values - other.values,
        seeds=add_seeds([(1.0, one.seeds), (-1.0, other.seeds)]),
    )


def average(benchmarks: Sequence[Draws]) -> Draws:
    """Average replicates over benchmarks."""
    mean = replace(
        _fewest(benchmarks),
        estimate=float(np.mean([d.estimate for d in benchmarks])),
        values=np.mean([d.values for d in benchmarks], axis=0),
        seeds=add_seeds([(1 / len(benchmarks), d.seeds) for d in benchmarks]),
    )
    variances = np.array([d.values.var() for d in benchmarks])
    true = variances * [d.inflation for d in benchmarks]
    if not true.any():
        return mean
    freedom = welch(true, np.array([d.freedom for d in benchmarks]))
    return replace(mean, freedom=freedom, inflation=float(true.sum() / variances.sum()))


def interval(d: Draws, level: float = LEVEL) -> tuple[float, float]:
    """Take percentiles, moved outwards as far as Student's t interval is wider than the normal one (expanded percentiles).

    The number itself is always within: a score of 100 % may be the true one.

    Source: Hesterberg, What Teachers Should Know About the Bootstrap (The American Statistician 69, 2015).
    """
    tail = ndtr(stdtrit(d.freedom, (1 - level) / 2) * np.sqrt(d.inflation))
    low, high = np.quantile(d.replicates, [tail, 1 - tail])
    return min(float(low), d.estimate), max(float(high), d.estimate)


def p_value(d: Draws) -> float:
    """Two-sided p-value of `the number is 0`: 1 - the level of the widest `interval` that leaves 0 out."""
    if d.estimate == 0:
        return 1.0
    n = len(d.replicates)
    tail = (1 + min((d.replicates <= 0).sum(), (d.replicates >= 0).sum())) / (n + 1)
    return float(min(1.0, 2 * stdtr(d.freedom, ndtri(min(tail, 0.5)) / np.sqrt(d.inflation))))


def _fewest(parts: Sequence[Draws]) -> Draws:
    return min(parts, key=lambda d: d.freedom)
