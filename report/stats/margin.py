"""Is a row as good as vanilla, but for a margin? A decision instead of an interval."""

from __future__ import annotations

from typing import Literal

from vtpbench.report.stats.draws import Draws, interval
from vtpbench.report.tables.conventions import LEVEL

Decision = Literal["within", "below", "undecided"]


def decide(average: Draws, margin: float, level: float = LEVEL) -> Decision:
    """Decide whether an average relative accuracy is less than `margin` below vanilla's 100; both in per cent.

    `within` and `below` are each wrong with probability (1 - level) / 2 at most, which is 2.5 %: the interval lies on one side of
    100 - margin as a whole, else the questions do not decide.

    Source: the usual test of non-inferiority by a two-sided interval (ICH E9, section 3.3.2).
    """
    low, high = interval(average, level)
    least = 100 - margin
    return "within" if low > least else "below" if high < least else "undecided"
