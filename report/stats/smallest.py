"""The smallest difference that a number of questions can show, before or after anything is measured."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist, fmean

from vtpbench.report.tables.conventions import LEVEL

DISCORDANCE = 0.1
"""Share of the questions that one of two rows has right and the other wrong, where nothing is known of it."""
POWER = 0.8
"""Probability with which a difference that is there is to be seen."""


def smallest_difference(
    questions: Sequence[int],
    vanilla: Sequence[float] | None = None,
    *,
    discordance: float = DISCORDANCE,
    level: float = LEVEL,
    power: float = POWER,
) -> float | None:
    """Smallest true difference between the averages of two rows that a paired test is likely to see, per cent.

    Questions are taken for independent, benchmarks as well, and both rows for equal but for that difference: its variance on
    n questions is discordance / n, a little more than it is where they differ. None = the questions are too few to see any:
    two rows cannot differ by more than they disagree.

    Parameters
    ----------
    questions : number of questions of each benchmark, at least 1
    vanilla : share of them that vanilla has right, for a difference of relative accuracies; None = of scores, out of 100
    discordance : share of the questions that one row has right and the other wrong, 0 to 1

    Source: Miettinen, The matched pairs design in the case of all-or-none responses (Biometrics 24, 1968), first approximation.

    """
    shares = [1.0] * len(questions) if vanilla is None else vanilla
    normal = NormalDist()
    quantiles = normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(power)
    variance = sum(discordance / n / share**2 for n, share in zip(questions, shares, strict=True))
    smallest = quantiles * sqrt(variance) / len(questions)
    return 100 * smallest if smallest <= fmean(discordance / share for share in shares) else None
