from __future__ import annotations

from itertools import pairwise
from math import ceil

import pytest

from vtpbench.pruners.base import Cut, ModelShape, average_in
from vtpbench.pruners.budget import boundaries, bracket, met, one_of, published, require_reachable, within
from vtpbench.pruners.errors import Infeasible, UserError
from vtpbench.pruners.fastv import FastV
from vtpbench.pruners.pyramiddrop import PyramidDrop
from vtpbench.pruners.sparsevlm import SparseVLM


def decoder(layers: int) -> ModelShape:
    return ModelShape("test", layers, 4, 32, 4, 32, 3, has_cls=True, full_attention=(0, 1, 2, 3))


@pytest.mark.parametrize(
    ("reference", "layers", "expected"),
    [
        ((2, 8, 16), 32, (2, 8, 16)),
        ((2, 8, 16), 28, (2, 7, 14)),
        ((2, 8, 16), 36, (2, 9, 18)),
        ((2, 8, 16), 8, (1, 2, 4)),
        ((2, 8, 16), 4, (1, 2, 3)),
        ((3, 7, 16), 28, (3, 6, 14)),
        ((3, 7, 16), 36, (3, 8, 18)),
        ((3, 7, 16), 8, (1, 2, 4)),
        ((8, 16, 24), 40, (10, 20, 30)),
    ],
)
def test_boundaries_keep_their_fraction_of_the_depth(reference: tuple[int, ...], layers: int, expected: tuple[int, ...]) -> None:
    assert boundaries(reference, decoder(layers)) == expected


def test_a_decoder_with_too_few_layers_is_refused() -> None:
    with pytest.raises(Infeasible, match="3 cuts need a decoder of more than 3 layers; this one has 3"):
        boundaries((2, 8, 16), decoder(3))


def test_bracket_encloses_the_target_and_reaches_the_end_exactly() -> None:
    low, high = bracket(lambda x: x * x, 0.25, high=1.0)
    assert low < high
    assert (low, high) == pytest.approx((0.5, 0.5))
    assert bracket(lambda x: x, 1.0, high=1.0)[1] == 1.0


def test_tolerance_is_one_token_or_one_percent() -> None:
    assert within(65, 64)
    assert not within(65.1, 64)
    assert within(2908, 2880)
    assert not within(2909, 2880)


def test_an_adaptive_pruner_may_keep_fewer_but_no_more() -> None:
    assert [met(average, 64, adaptive=False) for average in (10, 63, 65, 66)] == [False, True, True, False]
    assert [met(average, 64, adaptive=True) for average in (10, 63, 65, 66)] == [True, True, True, False]


def test_the_floor_is_named_as_the_smallest_budget_that_works() -> None:
    lowest = (Cut(2, 1),)
    with pytest.raises(Infeasible, match="X keeps all 2880 tokens in 2 of 32 layers: at least 181 on average, not 180"):
        require_reachable(180, lowest, 2880, decoder(32), "X")
    require_reachable(181, lowest, 2880, decoder(32), "X")


@pytest.mark.parametrize(("budget", "n", "layers"), [(100, 576, 32), (192, 577, 32), (192, 576, 28)])
def test_published_lists_hold_for_their_own_case_only(budget: int, n: int, layers: int) -> None:
    assert published({192: "list"}, 192, 576, decoder(32), "X") == "list"
    with pytest.raises(Infeasible, match=f"X has published schedules for 192 of 576 .* not for {budget} of {n} in {layers}"):
        published({192: "list"}, budget, n, decoder(layers), "X")


def test_an_unknown_value_names_the_valid_ones() -> None:
    with pytest.raises(UserError, match=r"option version=1\.5: use '1\.5' or '2'"):
        one_of("version", 1.5, ("1.5", "2"))


def lowest_budget(pruner: FastV | PyramidDrop | SparseVLM, n: int, layers: int) -> int:
    """Layers with all tokens, then one token in each, or with merging one token and the clusters that it cannot avoid."""
    shape = decoder(layers)
    (first, *later) = [cut.at for cut in pruner.cuts(n, n, shape)]
    ends, count, total = [*later, layers], n, first * n
    for start, end in pairwise([first, *ends]):
        count = min(count, 1 + ((3 * (count - 1) // 10 + 1) // 10 + 1 if pruner == SparseVLM() and count > 1 else 0))
        total += count * (end - start)
    return ceil(total / layers)


IN_LLM = [FastV(), FastV(rows="all"), FastV(layer=1), FastV(layer=3), PyramidDrop(), SparseVLM(), SparseVLM(version="2")]


@pytest.mark.parametrize("pruner", IN_LLM, ids=repr)
@pytest.mark.parametrize(
    ("n", "layers"), [(576, 32), (2880, 32), (144, 8), (1, 28), (7, 28), (300, 28), (1369, 28), (3, 36), (500, 36), (2500, 36)]
)
def test_every_reachable_budget_is_met_and_every_other_refused(pruner: FastV, n: int, layers: int) -> None:
    shape, floor, last = decoder(layers), lowest_budget(pruner, n, layers), 0.0
    for budget in sorted({*range(1, n + 1, max(1, n // 60)), max(1, floor - 1), floor, n}):
        if budget < floor:
            with pytest.raises(Infeasible, match=f"keeps all {n} tokens in .* at least {floor} on average, not {budget}"):
                pruner.cuts(budget, n, shape)
            continue
        cuts = pruner.cuts(budget, n, shape)
        last = average_in(cuts, n, layers)
        assert within(last, budget)
        at, keep = [cut.at for cut in cuts], [cut.keep for cut in cuts]
        assert at[0] >= 1
        assert at == sorted(set(at))
        assert at[-1] < layers
        assert n >= keep[0]
        assert keep == sorted(keep, reverse=True)
        assert keep[-1] >= 1
    assert last == n, "a budget of all tokens keeps all"


@pytest.mark.parametrize("pruner", IN_LLM, ids=repr)
def test_a_budget_above_the_image_keeps_all(pruner: FastV) -> None:
    assert {cut.keep for cut in pruner.cuts(192, 100, decoder(32))} == {100}


@pytest.mark.parametrize("pruner", [PyramidDrop(), SparseVLM(), SparseVLM(version="2")], ids=repr)
def test_small_models_get_sensible_schedules(pruner: PyramidDrop) -> None:
    with pytest.raises(Infeasible, match=r"keeps all 144 tokens in 1 of 8 layers: at least (19|21) on average"):
        pruner.cuts(16, 144, decoder(8))
    small, large = pruner.cuts(32, 144, decoder(8)), pruner.cuts(48, 144, decoder(8))
    assert [cut.at for cut in small] == [1, 2, 4]
    assert all(a.keep < b.keep for a, b in zip(small, large, strict=True))
    assert all(a.keep > b.keep for a, b in pairwise(small))
