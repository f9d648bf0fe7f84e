from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri

from vtpbench.report.stats.draws import Draws, interval
from vtpbench.report.stats.margin import decide, unseen_loss


def average(centre: float, error: float) -> Draws:
    return Draws(centre, centre + error * ndtri((np.arange(4000) + 0.5) / 4000), np.inf, 1.0)


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


def test_a_loss_that_may_go_unseen_is_not_ruled_out_by_questions_that_show_none() -> None:
    same = Draws(100.0, np.full(2000, 100.0), 39, 40 / 39)
    assert interval(same) == (100, 100)
    unseen = unseen_loss([40], [0.8])
    assert (1 - unseen / 100) ** (40 * 0.8) == pytest.approx(0.025, abs=0.006)
    assert decide(same, 2.0, unseen) == "undecided"
    assert decide(same, unseen + 0.1, unseen) == "within"
    assert unseen_loss([40, 40], [0.8, 0.8]) == pytest.approx(unseen / 2)
    assert unseen_loss([40, 4000], [0.8, 0.8]) == pytest.approx(unseen / 2), "it may all be lost where a question weighs most"
