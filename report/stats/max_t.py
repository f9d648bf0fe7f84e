"""Several comparisons at once, by the largest of their t statistics in the same replicates.

All differences are of rows that answered the same questions, so their errors go together. The largest t of the replicates
knows how closely; a correction for the number of comparisons alone, as Holm's, takes the worst case.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri, stdtr

from vtpbench.report.stats.draws import Draws
from vtpbench.report.stats.metrics import FloatArray
from vtpbench.report.tables.conventions import LEVEL

_LARGEST = 1e9
"""Stands for the t of a difference that no replicate moves."""


def step_down(differences: Sequence[Draws]) -> list[float]:
    """Two-sided p-values of `the difference is 0`, corrected for their number.

    Source: Romano and Wolf, Exact and Approximate Stepdown Methods for Multiple Hypothesis Testing (JASA 100, 2005),
    Algorithm 4.1; replicates are centred at their median.
    """
    if not differences:
        return []
    scores, nulls = zip(*map(_studentised, differences), strict=True)
    found, null = np.abs(np.array(scores)), np.abs(np.stack(nulls))
    order = np.argsort(-found, kind="stable")
    steps = [_share(null[order[i:]].max(0), found[row]) for i, row in enumerate(order)]
    corrected = np.empty(len(order))
    corrected[order] = np.maximum.accumulate(steps)
    return [float(p) for p in corrected]


def may_be_best(differences: Sequence[Draws], level: float = LEVEL) -> bool:
    """Whether a row may be the one whose true average is the highest; `differences` are those of all others from it.

    The rows of which this is true hold the best with probability `level` or more, whichever it is. A row is not among them
    where some other is better by more than the largest of all these differences could be by chance.

    Source: Hsu, Simultaneous Confidence Intervals for all Distances from the "Best" (Annals of Statistics 9, 1981); the
    largest t is the replicates' own instead of Dunnett's.
    """
    if not differences:
        return True
    scores, nulls = zip(*map(_studentised, differences), strict=True)
    return _share(np.stack(nulls).max(0), max(scores)) > 1 - level


def _studentised(d: Draws) -> tuple[float, FloatArray]:
    """Give t of a difference, and what the replicates say of t where there is no difference.

    t is the value of a normal variable that is as rare as t is of Student's. Its error is that of a normal variable whose middle
    95 % are as wide as the replicates': where few seeds matter, these have no variance of their own.
    """
    low, middle, high = map(float, np.quantile(d.replicates, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2]))
    error = (high - low) / 2 / ndtri((1 + LEVEL) / 2)
    if error <= (noise := _noise(d.replicates)):
        sure = float(np.copysign(_LARGEST, middle)) if abs(middle) > noise else 0.0
        return sure, np.zeros_like(d.replicates)
    t = middle / error / np.sqrt(d.inflation) if d.estimate else 0.0
    found = float(np.copysign(min(_LARGEST, -ndtri(stdtr(d.freedom, -abs(t)))), t))
    return found, (d.replicates - middle) / error


def _noise(values: FloatArray) -> float:
    """Spread that comes from rounding."""
    return 1e-12 * float(np.abs(values).max(initial=1.0))


def _share(null: FloatArray, found: float) -> float:
    return float((1 + (null >= found).sum()) / (1 + null.size))
