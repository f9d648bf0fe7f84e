"""Intervals and tests from bootstrap replicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from vtpbench.report.stats.metrics import FloatArray
from vtpbench.report.stats.sums import Sums, welch
from vtpbench.report.tables.conventions import LEVEL


@dataclass(frozen=True)
class Draws:
    """Replicates of one number, and how much they can be trusted."""

    values: FloatArray
    """Shape (replicates,)."""
    freedom: float
    """Degrees of freedom of their spread: see `Sums.freedom`."""
    inflation: float
    """By how much their variance is too small: units / (units - 1)."""

    @property
    def units(self) -> int:
        """Number of units behind a number of one benchmark."""
        return round(self.inflation / (self.inflation - 1))


def draws(values: FloatArray, cell: Sums) -> Draws:
    """Describe the replicates of a cell's score."""
    units = cell.below.any(1).sum()
    return Draws(values, cell.freedom, float(units / (units - 1)))


def pooled(seeds: Sequence[Draws]) -> Draws:
    """Mean over seeds, which share their units."""
    return replace(_fewest(seeds), values=np.mean([d.values for d in seeds], axis=0))


def relative(score: Draws, vanilla: Draws, higher_is_better: bool = True) -> Draws:
    """Per cent of vanilla, both resampled together, as `vtpbench.report.tables.rounding.relative` has it."""
    ratios = 100 * (score.values / vanilla.values)
    return replace(_fewest([score, vanilla]), values=ratios if higher_is_better else 200 - ratios)


def difference(one: Draws, other: Draws) -> Draws:
    """Paired difference of two numbers on one benchmark."""
    return replace(_fewest([one, other]), values=one.values - other.values)


def average(benchmarks: Sequence[Draws]) -> Draws:
    """Average replicates over benchmarks."""
    values = np.mean([d.values for d in benchmarks], axis=0)
    variances = np.array([d.values.var() for d in benchmarks])
    true = variances * [d.inflation for d in benchmarks]
    if not true.any():
        return replace(_fewest(benchmarks), values=values)
    freedom = welch(true, np.array([d.freedom for d in benchmarks]))
    return Draws(values, freedom, float(true.sum() / variances.sum()))


def interval(d: Draws, level: float = LEVEL) -> tuple[float, float]:
    """Take percentiles, moved outwards as far as Student's t interval is wider than the normal one (expanded percentiles).

    Source: Hesterberg, What Teachers Should Know About the Bootstrap (The American Statistician 69, 2015).
    """
    tail = ndtr(stdtrit(d.freedom, (1 - level) / 2) * np.sqrt(d.inflation))
    low, high = np.quantile(d.values, [tail, 1 - tail])
    return float(low), float(high)


def p_value(d: Draws) -> float:
    """Two-sided p-value of `the number is 0`: 1 - the level of the widest `interval` that leaves 0 out."""
    n = len(d.values)
    tail = (1 + min((d.values <= 0).sum(), (d.values >= 0).sum())) / (n + 1)
    return float(min(1.0, 2 * stdtr(d.freedom, ndtri(min(tail, 0.5)) / np.sqrt(d.inflation))))


def _fewest(parts: Sequence[Draws]) -> Draws:
    return min(parts, key=lambda d: d.freedom)
