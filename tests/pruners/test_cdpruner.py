"""CDPruner: the golden example of its specification, the literal rule, and its invariances."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vtpbench.pruners.base import Cut, Evidence, Grid, ModelShape, TextTowerSource, TokenView
from vtpbench.pruners.cdpruner import CDPruner, greedy_order, order_tokens
from vtpbench.pruners.errors import Unsupported, UserError

CLIP = ModelShape("test", 32, 4, 32, 24, 32, 22, True, tuple(range(24)), text_tower=TextTowerSource("some/clip", "abc"))
QWEN = ModelShape("test", 32, 4, 32, 24, 32, 22, False, tuple(range(24)))
ROWS = torch.tensor([[1, 0, 0], [0.9, 0.1, 0], [0, 1, 0], [0, 0.9, 0.2], [0, 0, 1]])
COSINES = torch.tensor([0.20, 0.10, 0.22, 0.18, 0.14])


def view_of(projected: Tensor, cosines: Tensor, keep: int, tiles: int = 1) -> TokenView:
    """Tokens `(images, n, dim)` that have these cosines with the question, `(images, n)`."""
    images, n, _ = projected.shape
    joint = torch.stack([cosines, (1 - cosines.square()).sqrt()], dim=-1)
    return TokenView(
        cut=Cut(0, keep),
        stage=0,
        features=torch.zeros(images, n, 1),
        index=torch.arange(n).expand(images, -1),
        grid=Grid(tiles, 1, n // tiles),
        shape=CLIP,
        keys=tuple(map(str, range(images))),
        evidence={Evidence("projected"): projected, Evidence("joint"): joint},
        asked=torch.tensor([[2.0, 0.0]]).expand(images, -1),
    )


def random_case(images: int, n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(images, n, 64, generator=generator), torch.rand(images, n, generator=generator)


def literal_order(rows: Tensor, weights: Tensor, k: int) -> list[int]:
    """The rule as the paper states it: each token is the one with which the determinant is largest."""
    unit = rows.double() / rows.double().norm(dim=-1, keepdim=True)
    kernel = weights.double()[:, None] * (unit @ unit.T) * weights.double()
    taken: list[int] = []
    for _ in range(k):
        left = [i for i in range(len(rows)) if i not in taken]
        taken.append(max(left, key=lambda i: float(torch.linalg.det(kernel[[*taken, i]][:, [*taken, i]]))))
    return taken


def test_golden() -> None:
    weights = CDPruner().relevance(COSINES[None])
    assert weights[0].tolist() == pytest.approx([0.16667, 1, 0.00001, 0.33334, 0.66667], abs=2e-5)
    assert greedy_order(ROWS[None], weights, 3)[0].tolist() == [[1, 4, 3]]
    assert CDPruner().apply(view_of(ROWS[None], COSINES[None], 3)).index.tolist() == [[1, 3, 4]]
    positive = CDPruner(relevance_sign=1)
    assert greedy_order(ROWS[None], positive.relevance(COSINES[None]), 3)[0].tolist() == [[2, 0, 4]]
    assert positive.apply(view_of(ROWS[None], COSINES[None], 3)).index.tolist() == [[0, 2, 4]]


def test_equal_relevance_leaves_diversity_alone() -> None:
    assert CDPruner().relevance(torch.full((1, 5), 0.3)).tolist() == [[1.0] * 5]
    assert greedy_order(ROWS[None], torch.ones(1, 5), 3)[0].tolist() == [[0, 2, 4]]


def test_agrees_with_the_literal_rule_and_gains_multiply_to_the_determinant() -> None:
    rows, weights = random_case(2, 40)
    order, gains = greedy_order(rows, weights, 12)
    assert order.tolist() == [literal_order(*image, 12) for image in zip(rows, weights, strict=True)]
    assert (gains.diff(dim=1) <= 1e-6).all()
    unit = torch.nn.functional.normalize(rows[0, order[0]].double(), dim=-1)
    chosen = weights[0, order[0]].double()
    assert torch.linalg.det(chosen[:, None] * (unit @ unit.T) * chosen).item() == pytest.approx(gains[0].prod().item(), rel=1e-3)


def test_where_nothing_is_added_the_most_relevant_fill() -> None:
    """Two directions, six copies of each: behind the first two there is no determinant left."""
    rows = torch.eye(2).repeat(6, 1)[None]
    weights = torch.linspace(0.1, 1, 12)[None]
    assert sorted(order_tokens(rows, weights, 5)[0].tolist()) == [7, 8, 9, 10, 11]
    heavy_first = weights.flip(1)
    assert order_tokens(rows, heavy_first, 5).tolist() == [[0, 1, 2, 3, 4]]
    assert order_tokens(rows, weights, 12).tolist() == [list(range(11, -1, -1))]


def test_relevance_is_scaled_over_all_tiles_and_tokens_are_chosen_in_each() -> None:
    rows, cosines = random_case(1, 60)
    keep = CDPruner().apply(view_of(rows, cosines, 20, tiles=5)).index[0]
    weights = CDPruner().relevance(cosines)[0].reshape(5, 12)
    expected = [order_tokens(rows[:, 12 * t : 12 * t + 12], weights[None, t], 4)[0].sort().values + 12 * t for t in range(5)]
    assert torch.equal(keep, torch.cat(expected))


def test_one_order_serves_all_budgets_and_the_batch_does_not_matter() -> None:
    rows, cosines = random_case(3, 144)
    weights = CDPruner().relevance(cosines)
    order, _ = greedy_order(rows, weights, 48)
    for budget in (16, 32, 48):
        together = CDPruner().apply(view_of(rows, cosines, budget)).index
        assert torch.equal(together, order[:, :budget].sort(dim=1).values)
        for i in range(3):
            assert torch.equal(CDPruner().apply(view_of(rows[i : i + 1], cosines[i : i + 1], budget)).index[0], together[i])


def test_scale_of_rows_changes_nothing() -> None:
    rows, cosines = random_case(1, 50)
    weights, scale = CDPruner().relevance(cosines), 2.0 ** torch.arange(50).remainder(5)
    assert torch.equal(greedy_order(rows * scale[:, None], weights, 20)[0], greedy_order(rows, weights, 20)[0])


def test_what_it_needs() -> None:
    assert CDPruner().needs(CLIP) == {Evidence("projected"), Evidence("joint")}
    assert CDPruner().fingerprint(CLIP) == "abc"
    assert CDPruner().fingerprint(QWEN) == ""
    with pytest.raises(Unsupported, match="was trained without one"):
        CDPruner().needs(QWEN)
    with pytest.raises(UserError, match="use -1 or 1"):
        CDPruner(relevance_sign=0)
