from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from vtpbench.report.plots.dodge import dodge


def test_equal_points_stand_beside_each_other_around_their_place() -> None:
    assert dodge({"a": [1.0, 5.0], "b": [1.0], "c": [1.0]}, near=0.1, step=0.5) == {"a": [0.5, 5.0], "b": [1.0], "c": [1.5]}


@pytest.mark.parametrize("seed", range(5))
def test_no_two_points_share_a_place_and_none_moves_far(seed: int) -> None:
    generator = np.random.default_rng(seed)
    places = {str(i): sorted(generator.integers(0, 4, 3) + generator.choice([0.0, 0.01], 3)) for i in range(6)}
    moved = dodge(places, near=0.05, step=0.02)
    flat = sorted(x for own in moved.values() for x in own)
    assert all(b - a > 0.019 for a, b in pairwise(flat))
    assert sum(flat) == pytest.approx(sum(x for own in places.values() for x in own))
    furthest = max(abs(a - b) for name in places for a, b in zip(places[name], moved[name], strict=True))
    assert furthest < 0.02 * 18
    assert dodge(places, near=0.05, step=0.02) == moved


def test_what_stands_apart_stays() -> None:
    assert dodge({"a": [1.0, 2.0], "b": [3.0]}, near=0.5, step=0.1) == {"a": [1.0, 2.0], "b": [3.0]}
