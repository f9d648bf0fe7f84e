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
    Algorithm 4.1; replicates are centred at their mean.
    """
    if not differences:
        return []
    found, null = np.abs(np.array([_score(d) for d in differences])), np.abs(np.stack([_null(d) for d in differences]))
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
    return _share(np.stack([_null(d) for d in differences]).max(0), max(map(_score, differences))) > 1 - level


def _score(d: Draws) -> float:
    """Give t of a difference, as the value of a normal variable that is as rare as it is of Student's."""
    mean, error = float(d.values.mean()), float(d.values.std())
    if error <= _noise(d.values):
        return float(np.copysign(_LARGEST, mean)) if abs(mean) > _noise(d.values) and mean else 0.0
    t = mean / error / np.sqrt(d.inflation)
    return float(np.copysign(min(_LARGEST, -ndtri(stdtr(d.freedom, -abs(t)))), t))


def _null(d: Draws) -> FloatArray:
    """Give what the replicates say of t where there is no difference."""
    error = d.values.std()
    centred: FloatArray = d.values - d.values.mean()
    return centred / error if error > _noise(d.values) else np.zeros_like(centred)


def _noise(values: FloatArray) -> float:
    """Spread that comes from rounding."""
    return 1e-12 * float(np.abs(values).max(initial=1.0))


def _share(null: FloatArray, found: float) -> float:
    return float((1 + (null >= found).sum()) / (1 + null.size))
