"""What other seeds would have given: the spread over the seeds of a row, beyond what the questions explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from vtpbench.report.stats.bootstrap import generator_of
from vtpbench.report.stats.metrics import FloatArray

Seeds = tuple[str, tuple[int, ...]]
"""Name of a row, and its seeds."""


def seed_noise(which: Seeds, apart: FloatArray, inflation: float) -> FloatArray:
    """Draw how far the mean over a row's seeds may lie from the mean over all seeds; shape (replicates,).

    It has Student's distribution with seeds - 1 degrees of freedom, and the spread of the seeds beyond what they would differ
    by if each question had luck of its own: that is among the replicates' spread already. Few seeds leave it wide, and none
    is left where seeds do not matter.

    Parameters
    ----------
    apart : replicates of each seed's number minus the mean over seeds; shape (replicates, seeds)
    inflation : by how much the replicates' variance is too small

    Source: the analysis-of-variance estimate of a variance component, 0 where it is negative (Searle, Casella and McCulloch,
    Variance Components, 1992, section 3.5).

    """
    replicates, n = apart.shape
    centre = apart.mean(0)
    squares = float((centre**2).sum())
    luck = inflation * float(apart.var(0).sum())
    scale = np.sqrt(max(0.0, squares - luck) / (n - 1) / n)
    noise: FloatArray = _students(which, replicates) @ (scale * centre / np.sqrt(squares or 1.0))
    return noise


@lru_cache(maxsize=128)
def _students(which: Seeds, replicates: int) -> FloatArray:
    """Draw what one row's seeds have in common on all benchmarks, and in all differences; shape (replicates, seeds)."""
    n = len(which[1])
    generator = generator_of(repr(which))
    normal = generator.standard_normal((replicates, n))
    found: FloatArray = normal / np.sqrt(generator.chisquare(n - 1, (replicates, 1)) / (n - 1))
    return found


def add_seeds(parts: Sequence[tuple[float, Mapping[Seeds, FloatArray]]]) -> dict[Seeds, FloatArray]:
    """Add what seeds move several numbers by, each with a factor; rows of the same name and seeds move together."""
    found: dict[Seeds, FloatArray] = {}
    for factor, seeds in parts:
        for which, own in seeds.items():
            found[which] = found[which] + factor * own if which in found else factor * own
    return found
