"""Methods in which one order of an image's tokens serves all budgets: a smaller budget keeps a subset of a larger one."""

from __future__ import annotations

import itertools
from functools import cache

import pytest
import torch
from pruner_options import ONEVISION, UNSUPPORTED

from vtpbench.harness.check.subject import ALL, HALF, QUARTER, PrunerOnModel
from vtpbench.harness.models.tiny import TINY
from vtpbench.pruners.registry import BUILT_IN, build, find

BUILDERS = {name: cache(builder) for name, builder in TINY.items()}
NESTED = [name for name in BUILT_IN if find(name).load().nested]
FAMILIES = [family for family in TINY if family != ONEVISION]  # it asks several times for a budget, see `_fit`
CASES = [(family, name) for name in (*NESTED, "fastv") for family in FAMILIES if (name, family) not in UNSUPPORTED]


def test_those_that_say_so() -> None:
    assert sorted(NESTED) == ["cdpruner", "divprune", "fastervlm", "random"]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_a_smaller_budget_keeps_a_subset_by_the_order_of_the_largest(family: str, name: str) -> None:
    """Of rankings and of greedy searches; FastV, inside the model, ranks what has seen all tokens, whatever the budget."""
    subject = PrunerOnModel(build(name, {"layer": 1} if name == "fastv" else {}), BUILDERS[family])
    budgets = [subject.run(share=share).choices for share in (QUARTER, HALF, ALL)]
    assert budgets[0]
    for smaller, larger in itertools.pairwise(budgets):
        for few, many in zip(smaller, larger, strict=True):
            assert few.view.cut.keep < many.view.cut.keep
            for part, whole in zip(few.keep.index.tolist(), many.keep.index.tolist(), strict=True):
                assert set(part) < set(whole)
    if name in NESTED:
        for few, _, many in zip(*budgets, strict=True):
            order = subject.pruner.apply_order(many.view)
            assert torch.equal(subject.pruner.take_first(order, few.view).index, few.keep.index)
