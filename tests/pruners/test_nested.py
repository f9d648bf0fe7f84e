"""Methods in which one order of an image's tokens serves all budgets: a smaller budget keeps a subset of a larger one."""

from __future__ import annotations

import itertools
from functools import cache

import pytest

from vtpbench.harness.check.subject import ALL, HALF, QUARTER, PrunerOnModel
from vtpbench.harness.models.tiny import TINY
from vtpbench.pruners.registry import build

BUILDERS = {name: cache(builder) for name, builder in TINY.items()}


CASES = [
    *((family, name) for name in ("random", "divprune", "fastervlm", "fastv") for family in TINY),
    *((family, "cdpruner") for family in ("llava", "llava_next")),
]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_a_smaller_budget_keeps_a_subset(family: str, name: str) -> None:
    """Of rankings and of greedy searches; FastV ranks what has seen all tokens, whatever the budget."""
    subject = PrunerOnModel(build(name, {"layer": 1} if name == "fastv" else {}), BUILDERS[family])
    budgets = [subject.run(share=share).choices for share in (QUARTER, HALF, ALL)]
    assert budgets[0]
    for smaller, larger in itertools.pairwise(budgets):
        for few, many in zip(smaller, larger, strict=True):
            assert few.view.cut.keep < many.view.cut.keep
            for part, whole in zip(few.keep.index.tolist(), many.keep.index.tolist(), strict=True):
                assert set(part) < set(whole)
