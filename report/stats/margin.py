"""Is a row as good as vanilla, but for a margin? A decision instead of an interval."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Literal

from vtpbench.report.stats.draws import Draws, interval
from vtpbench.report.tables.conventions import LEVEL

Decision = Literal["within", "below", "undecided"]


def decide(average: Draws, margin: float, unseen: float = 0.0, level: float = LEVEL) -> Decision:
    """Decide whether an average relative accuracy is less than `margin` below vanilla's 100; all in per cent of vanilla.

    `within` and `below` are each wrong with probability (1 - level) / 2 at most, which is 2.5 %: the interval lies on one side of
    100 - margin as a whole, else the questions do not decide. Nor do they where a loss of `margin` could well go unseen
    (`unseen_loss`): a row that answers a few questions as vanilla does has an interval without width.

    Source: the usual test of non-inferiority by a two-sided interval (ICH E9, section 3.3.2).
    """
    low, high = interval(average, level)
    least = 100 - margin
    if low > least and margin > unseen:
        return "within"
    return "below" if high < least else "undecided"


def unseen_loss(units: Sequence[int], vanilla: Sequence[float], level: float = LEVEL) -> float:
    """Largest loss of an average that shows in no question with probability (1 - level) / 2, in per cent of vanilla.

    Parameters
    ----------
    units : images of each benchmark, that are resampled
    vanilla : mean score of its questions with vanilla, from 0 to 1

    Source: Hanley and Lippman-Hand, If Nothing Goes Wrong, Is Everything All Right? (JAMA 249, 1983), for the benchmark on
    which a loss weighs most.

    """
    return 100 * -log((1 - level) / 2) * max(1 / n / share for n, share in zip(units, vanilla, strict=True)) / len(units)
