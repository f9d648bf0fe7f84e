"""Rectangles of unequal size: each is an image of its own for a pruner that acts tile by tile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import pytest
import torch
from torch import Tensor

from vtpbench.pruners.base import LLAVA_1_5_7B, Cut, Evidence, Grid, Pruner, Selection, TokenView
from vtpbench.pruners.pictures import by_picture
from vtpbench.pruners.ranking import NOWHERE


@dataclass(frozen=True)
class Unequal(Grid):
    """A base tile of 2 x 2 and a picture of 3 x 4."""

    tiled: ClassVar[bool] = False
    pictures: ClassVar[tuple[tuple[int, int], ...]] = ((2, 2), (3, 4))


NEED = Evidence("received", 3)


def view(keep: int) -> TokenView:
    score = torch.stack([torch.arange(16.0), torch.arange(16.0).flip(0)])
    return TokenView(
        cut=Cut(0, keep),
        stage=0,
        features=score[..., None].expand(-1, -1, 3),
        index=torch.arange(16).expand(2, -1),
        grid=Unequal(5, 2, 2),
        shape=LLAVA_1_5_7B,
        keys=("a", "b"),
        evidence={NEED: score},
    )


@dataclass(frozen=True)
class ByTile(Pruner):
    """Keeps what receives most, and says which column a token is in."""

    scope: ClassVar[Literal["image", "tile"]] = "tile"

    def score(self, view: TokenView) -> Tensor:
        return view.get("received")

    def segments(self, view: TokenView) -> Tensor | None:
        return view.index % view.grid.width % view.cut.keep


@pytest.mark.parametrize("keep", [1, 2, 7, 8, 15, 16])
def test_each_has_its_share_by_size_and_its_own_tokens(keep: int) -> None:
    first, second = by_picture(view(keep))
    assert (first.grid, second.grid) == (Grid(1, 2, 2), Grid(1, 3, 4))
    assert (first.cut.keep, second.cut.keep) == (keep // 4, keep - keep // 4)
    assert first.index.tolist() == [list(range(4))] * 2
    assert second.index.tolist() == [list(range(12))] * 2
    assert torch.equal(torch.cat([first.get("received"), second.get("received")], dim=1), view(keep).get("received"))
    assert (first.keys, second.keys) == (("a/0", "b/0"), ("a/1", "b/1"))


def test_choices_are_joined_at_the_places_of_the_image() -> None:
    chosen = ByTile().apply(view(8))
    assert chosen.index.tolist() == [[2, 3, 10, 11, 12, 13, 14, 15], [0, 1, 4, 5, 6, 7, 8, 9]]
    assert not chosen.merged
    assert ByTile().apply(view(2)).index.tolist() == [[14, 15], [4, 5]]  # the base tile has no share
    image = replace(view(8), grid=Grid(1, 4, 4))
    assert ByTile().apply(image).index.tolist() == [list(range(8, 16)), list(range(8))]


@dataclass(frozen=True)
class Merging(ByTile):
    """Gives means, one of no place, and one of a place that is not its picture's."""

    def reduce(self, view: TokenView) -> Selection:
        index = torch.arange(view.cut.keep).expand(2, -1).clone()
        index[:, 0], index[:, 1] = -1, view.n
        return Selection(index, view.features[:, : view.cut.keep] + 100)


def test_rows_without_a_place_stay_so_and_nobody_names_the_token_of_another() -> None:
    chosen = Merging().apply(view(12))
    assert chosen.index[0].tolist() == [-1, NOWHERE, 2, -1, NOWHERE, *range(6, 13)]
    assert chosen.features is not None
    assert chosen.features[0, :, 0].tolist() == [100, 101, 102, *range(104, 113)]


def test_groups_are_numbered_one_picture_behind_the_other() -> None:
    groups = ByTile().apply_segments(view(8))
    assert groups is not None
    assert groups[0].tolist() == [0, 1] * 2 + [2, 3, 4, 5] * 3
    without = ByTile().apply_segments(view(2))
    assert without is not None
    assert without[0].tolist() == [-1] * 4 + [0, 1] * 6


@dataclass(frozen=True)
class Ranking(ByTile):
    """Does as `ByTile`, and says that one order serves all budgets."""

    nested: ClassVar[bool] = True


@pytest.mark.parametrize("most", [16, 9])
def test_an_order_for_a_larger_budget_serves_a_smaller_one(most: int) -> None:
    order = Ranking().apply_order(view(most))
    assert order.shape == (2, most)
    for keep in range(1, most + 1):
        assert torch.equal(Ranking().take_first(order, view(keep)).index, ByTile().apply(view(keep)).index)
