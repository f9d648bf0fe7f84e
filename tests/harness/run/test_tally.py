from __future__ import annotations

import pytest

from vtpbench.harness.run.tally import RECENT_S, Speed, Tally


def test_speed_is_that_of_the_last_minutes() -> None:
    now = [0.0]
    speed = Speed(lambda: now[0])
    assert speed.per_s() is None
    speed.begin()
    now[0] = 10.0
    speed.add(50)
    assert speed.per_s() == pytest.approx(5.0)
    now[0] = 10.0 + RECENT_S
    speed.add(600)
    assert speed.per_s() == pytest.approx(650 / RECENT_S)
    now[0] += 1
    assert speed.per_s() == pytest.approx(600 / RECENT_S), "what came earlier is forgotten, idle time is not"
    assert speed.total == 650


def test_what_is_left_is_known_once_a_size_is() -> None:
    tally = Tally({"a": None, "b": None, "c": None}, {"a": 5})
    assert (tally.there, tally.left) == (5, None)
    tally.expect(["a", "b"], 20)
    assert tally.left == 15 + 20 + 20, "a cell of unknown size counts as the mean of the others"
    tally.add("b", 8)
    assert tally.set("a", 20) == 15
    assert (tally.there, tally.left) == (28, 0 + 12 + 20)
    tally.end("c")
    assert (tally.ended, tally.left) == (1, 12), "of a cell that has its record nothing is to come"


def test_nothing_is_left_where_all_have_ended() -> None:
    tally = Tally({"a": None}, {})
    tally.end("a")
    assert tally.left == 0
