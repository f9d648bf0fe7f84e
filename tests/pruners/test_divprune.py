"""DivPrune: the golden examples of its specification, and its invariances."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vtpbench.pruners.base import Cut, Evidence, Grid, ModelShape, TokenView
from vtpbench.pruners.divprune import DivPrune

PROJECTED = Evidence("projected")
SHAPE = ModelShape("test", 32, 4, 32, 24, 32, 22, True, tuple(range(24)))

GOLDEN = torch.tensor([[1, 0], [1, 0.1], [0, 1], [-1, 0], [0.7, 0.7], [0, -1]])


def view_of(projected: Tensor, keep: int, tiles: int = 1) -> TokenView:
    images, n, _ = projected.shape
    return TokenView(
        cut=Cut(0, keep),
        stage=0,
        features=torch.zeros(images, n, 1),
        index=torch.arange(n).expand(images, -1),
        grid=Grid(tiles, 1, n // tiles),
        shape=SHAPE,
        keys=tuple(map(str, range(images))),
        evidence={PROJECTED: projected},
    )


def random_rows(images: int, n: int) -> Tensor:
    return torch.randn(images, n, 8, generator=torch.Generator().manual_seed(n))


def literal_order(rows: Tensor, k: int) -> list[int]:
    """The rule as the paper states it, one image, recomputed in every step."""
    unit = rows.double() / rows.double().norm(dim=-1, keepdim=True)
    distance = 1 - unit @ unit.T
    taken = [int(distance.sort(dim=0).values[1].argmax())]
    while len(taken) < k:
        left = [i for i in range(len(rows)) if i not in taken]
        taken.append(max(left, key=lambda i: (float(distance[taken, i].min()), -i)))
    return taken


def test_golden_order() -> None:
    view = view_of(GOLDEN[None], 6)
    assert DivPrune().selection_order(view).tolist() == [[3, 0, 2, 5, 4, 1]]
    assert DivPrune().apply(view_of(GOLDEN[None], 2)).index.tolist() == [[0, 3]]
    assert DivPrune().apply(view_of(GOLDEN[None], 4)).index.tolist() == [[0, 2, 3, 5]]


def test_duplicates_are_taken_once() -> None:
    assert DivPrune().apply(view_of(torch.ones(1, 5, 2), 3)).index.tolist() == [[0, 1, 2]]
    assert DivPrune().apply(view_of(torch.randn(1, 1, 4).expand(1, 30, 4), 30)).index.tolist() == [list(range(30))]


def test_a_single_token() -> None:
    assert DivPrune().apply(view_of(torch.ones(1, 1, 2), 1)).index.tolist() == [[0]]


def test_agrees_with_the_literal_rule() -> None:
    rows = random_rows(2, 60)
    order = DivPrune().selection_order(view_of(rows, 40))
    assert order.tolist() == [literal_order(image, 40) for image in rows]


@pytest.mark.parametrize(
    ("budget", "n", "tiles"),
    [(b, 144, 1) for b in (16, 32, 48, 144)] + [(b, 576, 1) for b in (192, 128, 64)] + [(b, 2880, 5) for b in (640, 320, 160)],
)
def test_counts_are_exact_and_ascending(budget: int, n: int, tiles: int) -> None:
    index = DivPrune().apply(view_of(random_rows(1, n), budget, tiles)).index
    assert index.shape == (1, budget)
    assert (index.diff(dim=1) > 0).all()


def test_one_order_serves_all_budgets() -> None:
    view = view_of(random_rows(2, 144), 144)
    order = DivPrune().selection_order(view)
    assert torch.equal(order.sort(dim=1).values, torch.arange(144).expand(2, -1))
    for budget in (16, 32, 48):
        assert torch.equal(DivPrune().apply(view_of(view.evidence[PROJECTED], budget)).index, order[:, :budget].sort().values)


def test_row_scale_changes_nothing_and_permutation_permutes() -> None:
    rows = random_rows(1, 50)
    order = DivPrune().selection_order(view_of(rows, 20))
    scale = 2.0 ** torch.arange(50).remainder(5)
    assert torch.equal(DivPrune().selection_order(view_of(rows * scale[None, :, None], 20)), order)
    shuffle = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(shuffle[DivPrune().selection_order(view_of(rows[:, shuffle], 20))], order)


def test_batch_does_not_matter() -> None:
    rows = random_rows(3, 144)
    together = DivPrune().selection_order(view_of(rows, 48))
    for i in range(3):
        assert torch.equal(DivPrune().selection_order(view_of(rows[i : i + 1], 48)), together[i : i + 1])
