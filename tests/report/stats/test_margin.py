from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri

from vtpbench.report.stats.draws import Draws, interval
from vtpbench.report.stats.margin import decide


def average(centre: float, error: float) -> Draws:
    return Draws(centre + error * ndtri((np.arange(4000) + 0.5) / 4000), np.inf, 1.0)


@pytest.mark.parametrize(
    ("centre", "error", "decision"),
    [(100, 0.9, "within"), (98, 0.9, "undecided"), (95, 0.9, "below"), (99, 5, "undecided"), (98.1, 0.01, "within")],
)
def test_the_whole_interval_decides(centre: float, error: float, decision: str) -> None:
    assert decide(average(centre, error), 2.0) == decision


def test_a_wider_margin_only_turns_towards_within() -> None:
    row = average(97, 1)
    low, high = interval(row)
    order = ["below", "undecided", "within"]
    found = [order.index(decide(row, margin)) for margin in np.linspace(0.1, 10, 100)]
    assert found == sorted(found)
    assert {*found} == {0, 1, 2}
    assert (decide(row, 100 - low + 0.01), decide(row, 100 - high - 0.01)) == ("within", "below")
