"""Random pruning: the golden example of its specification, nested budgets, and a draw that nothing else decides."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
import torch

from vtpbench.pruners.base import Cut, Grid, ModelShape, TokenView
from vtpbench.pruners.random import Random, private_generator

SHAPE = ModelShape("test", 32, 4, 32, 24, 32, 22, True, tuple(range(24)))

GOLDEN_SEED = 305
"""The seed from which an image named `key` with 5 tokens draws the permutation of the worked example."""


def kept(keep: int, keys: tuple[str, ...] = ("key",), n: int = 5, seed: int = GOLDEN_SEED) -> list[list[int]]:
    images = len(keys)
    index = torch.arange(n).expand(images, -1)
    view = TokenView(Cut(0, keep), 0, torch.zeros(images, n, 1), index, Grid(1, 1, n), SHAPE, keys)
    return Random(seed=seed).apply(view).index.tolist()


def test_golden() -> None:
    assert torch.randperm(5, generator=private_generator(GOLDEN_SEED, "key")).tolist() == [3, 0, 4, 1, 2]
    assert kept(2) == [[0, 3]]
    assert kept(3) == [[0, 3, 4]]


def test_budgets_are_nested_and_counts_exact() -> None:
    rows = [kept(keep, n=144, seed=0)[0] for keep in range(1, 145)]
    for count, (smaller, larger) in enumerate(pairwise(rows), start=1):
        assert len(set(smaller)) == count
        assert smaller == sorted(smaller)
        assert set(smaller) < set(larger)
    assert rows[-1] == list(range(144))


def test_an_image_draws_by_its_name_alone() -> None:
    together = kept(20, ("a", "b", "c"), n=144)
    assert [kept(20, (key,), n=144)[0] for key in "abc"] == together
    assert kept(20, ("c", "a", "b"), n=144) == [together[2], together[0], together[1]]
    assert len({tuple(row) for row in together}) == 3
    assert kept(20, ("a",), n=144, seed=1) != kept(20, ("a",), n=144, seed=2)


@pytest.mark.parametrize("seed", [0, 1])
def test_global_generators_neither_decide_nor_move(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert kept(3) == [[0, 3, 4]]
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])
