from __future__ import annotations

import pytest
import torch

from vtpbench.pruners.base import Cut, Evidence, Grid, ModelShape, TokenView, average_in
from vtpbench.pruners.errors import Infeasible, UserError
from vtpbench.pruners.fastv import FastV

HEADS = torch.tensor([[0.0, 1, 2, 0, 1, 3, 1, 0], [2.0, 0, 0, 3, 1, 0, 0, 1]])
ROW, ROWS = Evidence("row", -1), Evidence("rows_mean", -1)


def decoder(layers: int = 32) -> ModelShape:
    return ModelShape("test", layers, 2, 32, 4, 32, 3, has_cls=True, full_attention=(0, 1, 2, 3))


def view(evidence: dict[Evidence, torch.Tensor], keep: int) -> TokenView:
    images, n = next(iter(evidence.values())).shape
    index = torch.arange(n).expand(images, n)
    return TokenView(Cut(2, keep), 0, torch.zeros(images, n, 4), index, Grid(1, 1, n), decoder(), ("x",) * images, evidence)


def causal_map() -> torch.Tensor:
    logits = torch.zeros(8, 8)
    logits[7, 4], logits[7, 5] = 1.5, 2.0
    return logits.masked_fill(torch.ones(8, 8, dtype=torch.bool).triu(1), float("-inf")).softmax(dim=-1)


def test_golden_a_softmax_comes_before_the_mean_over_heads() -> None:
    row = HEADS.softmax(dim=-1).mean(dim=0)[None, 1:6]
    torch.testing.assert_close(row, torch.tensor([[0.0487, 0.1092, 0.2850, 0.0720, 0.2735]]), atol=1e-4, rtol=0)
    assert FastV().select(view({ROW: row}, 1)).tolist() == [[2]]
    assert FastV().select(view({ROW: row}, 2)).tolist() == [[2, 4]]
    assert FastV().reduce(view({ROW: row}, 5)).index.tolist() == [[0, 1, 2, 3, 4]]


def test_golden_b_last_row_against_the_early_bias_of_all_rows() -> None:
    probabilities = causal_map()
    last, mean = probabilities[None, 7, 1:6], probabilities.mean(dim=0)[None, 1:6]
    torch.testing.assert_close(last, torch.tensor([[0.0560, 0.0560, 0.0560, 0.2508, 0.4135]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(mean, torch.tensor([[0.2061, 0.1436, 0.1019, 0.0950, 0.0904]]), atol=1e-4, rtol=0)
    both = view({ROW: last, ROWS: mean}, 2)
    assert FastV().select(both).tolist() == [[3, 4]]
    assert FastV(rows="all").select(both).tolist() == [[0, 1]]


def test_equal_attention_favours_the_lower_index_and_images_do_not_mix() -> None:
    row = torch.tensor([[0.1, 0.2, 0.2, 0.2], [0.4, 0.1, 0.3, 0.2]])
    assert FastV().select(view({ROW: row}, 2)).tolist() == [[1, 2], [0, 2]]


def test_evidence_is_that_of_the_layer_before_the_cut() -> None:
    assert FastV().needs(decoder()) == {ROW}
    assert FastV(rows="all").needs(decoder()) == {ROWS}
    assert FastV().position_rule == "keep"


@pytest.mark.parametrize(
    ("n", "budget", "layer", "keep"),
    [
        (576, 192, 1, 180),
        (576, 192, 2, 166),
        (576, 192, 3, 152),
        (576, 128, 1, 114),
        (576, 128, 2, 98),
        (576, 128, 3, 82),
        (576, 64, 1, 47),
        (576, 64, 2, 30),
        (576, 64, 3, 11),
        (2880, 640, 1, 568),
        (2880, 640, 2, 491),
        (2880, 640, 3, 408),
        (2880, 320, 1, 237),
        (2880, 320, 2, 149),
        (2880, 320, 3, 55),
        (2880, 160, 1, 72),
        (576, 171, 2, 144),
        (576, 315, 3, 288),
    ],
)
def test_counts_of_the_worked_table(n: int, budget: int, layer: int, keep: int) -> None:
    assert FastV(layer=layer).cuts(budget, n, decoder()) == (Cut(layer, keep),)


@pytest.mark.parametrize(("share", "k2", "k3"), [(1 / 3, 0.2821, 0.2533), (2 / 9, 0.1624, 0.1289), (1 / 9, 0.0427, 0.0044)])
def test_shares_of_a_28_layer_decoder(share: float, k2: float, k3: float) -> None:
    n = 90_000
    for layer, expected in ((2, k2), (3, k3)):
        (cut,) = FastV(layer=layer).cuts(round(share * n), n, decoder(28))
        assert cut.keep / n == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("layer", [2, 3])
def test_budgets_below_the_floor_are_infeasible(layer: int) -> None:
    with pytest.raises(Infeasible, match=f"FastV with layer={layer} keeps all 2880 tokens in {layer} of 32 layers: at least"):
        FastV(layer=layer).cuts(160, 2880, decoder())


@pytest.mark.parametrize(("nominal", "keep", "average"), [(192, 180, 204.75), (128, 114, 142.875), (64, 48, 81.0)])
def test_the_cited_variant_exceeds_its_nominal_budget(nominal: int, keep: int, average: float) -> None:
    cited = FastV(rows="all", schedule="paper")
    cuts = cited.cuts(nominal, 576, decoder())
    assert cuts == (Cut(2, keep),)
    assert average_in(cuts, 576, 32) == cited.expected_average(nominal, 576, decoder()) == average
    assert FastV().expected_average(nominal, 576, decoder()) == nominal


def test_the_cited_variant_has_no_other_lists() -> None:
    with pytest.raises(Infeasible, match="192, 128, 64 of 576 tokens in 32 layers only"):
        FastV(rows="all", schedule="paper").cuts(96, 576, decoder())


@pytest.mark.parametrize("options", [{"rows": "first"}, {"schedule": "fari"}, {"layer": 0}, {"schedule": "paper"}])
def test_unusable_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match="use"):
        FastV(**options)  # type: ignore[arg-type]  # the mistake under test


def test_a_cut_behind_the_last_layer_is_infeasible() -> None:
    with pytest.raises(Infeasible, match="layer=8 cuts behind the last of 8 layers"):
        FastV(layer=8).cuts(32, 144, decoder(8))
