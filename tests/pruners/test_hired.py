"""HiRED: the golden example of its specification, exact counts where the authors lose tokens, and its regions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vtpbench.pruners.base import Cut, Evidence, Grid, ModelShape, TokenView, top
from vtpbench.pruners.errors import Unsupported, UserError
from vtpbench.pruners.hired import HiRED, layout

FIRST, LAST = Evidence("cls", 0), Evidence("cls", 22)
CLIP = ModelShape("llava_next", 32, 32, 8, 24, 8, 22, True, tuple(range(24)))
QWEN = ModelShape("qwen2_5_vl", 28, 28, 8, 32, 8, 31, False, (7, 15, 23, 31), True)
TILES = Grid(5, 6, 6, across=2)


def view_of(first: Tensor, last: Tensor, keep: int, grid: Grid = TILES) -> TokenView:
    images, n = first.shape
    return TokenView(
        cut=Cut(0, keep),
        stage=0,
        features=torch.zeros(images, n, 1),
        index=torch.arange(n).expand(images, -1),
        grid=grid,
        shape=CLIP,
        keys=tuple(map(str, range(images))),
        evidence={FIRST: first, LAST: last},
    )


def golden() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(11)
    layers = [(2 * torch.randn(5, 2, 37, 37, generator=draw)).softmax(-1) for _ in range(2)]
    first, last = (layer.mean(dim=1)[:, 0, 1:].reshape(1, -1) for layer in layers)
    return first, last


def by_tile(index: Tensor, tile: int = 36) -> list[list[int]]:
    return [(index[index // tile == t] % tile).tolist() for t in range(5)]


def drawn(n: int, images: int = 1) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(n)
    first, last = torch.rand(2, images, n, generator=draw)
    return first, last


def test_golden() -> None:
    base, *tiles = by_tile(HiRED().apply(view_of(*golden(), 45)).index[0])
    assert base == [0, 1, 2, 4, 7, 8, 9, 10, 11, 13, 15, 16, 17, 18, 20, 22, 24, 25, 27, 30, 32, 35]
    assert tiles == [
        [11, 20, 22],
        [10, 13, 17, 27, 30, 34],
        [10, 12, 21, 34, 35],
        [1, 3, 5, 13, 16, 18, 24, 30, 33],
    ]


def test_golden_shares() -> None:
    """In the first layer 2, 5, 4 and 7 of 18 tokens lie on the tiles, 4, 3, 6 and 5 in bands of rows."""
    first, last = golden()
    counts = {
        pruner.regions: list(map(len, by_tile(pruner.apply(view_of(first, last, 45)).index[0])))
        for pruner in (HiRED(), HiRED(regions="bands"))
    }
    assert counts == {"rectangles": [22, 3, 6, 5, 9], "bands": [22, 5, 4, 8, 6]}
    fifth = HiRED(alpha=0.2).apply(view_of(first, last, 36)).index[0]
    assert list(map(len, by_tile(fifth))) == [7, 4, 7, 8, 10]  # shares of 4.143, 7.25, 8.286, 9.321 of 29


def test_parts_of_the_base_tile() -> None:
    cpu = torch.device("cpu")
    square = layout(Grid(5, 4, 4, across=2), "rectangles", cpu)[2].reshape(4, 4).tolist()
    assert square == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert layout(Grid(4, 3, 6, across=3), "rectangles", cpu)[2].reshape(3, 6).tolist() == [[1, 1, 2, 2, 3, 3]] * 3
    assert layout(Grid(4, 3, 6, across=3), "bands", cpu)[2].reshape(3, 6).tolist() == [[t] * 6 for t in (1, 2, 3)]


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("keep", [1, 2, 5, 45, 100, 179, 180])
def test_counts_are_exact(keep: int, alpha: float) -> None:
    first, last = drawn(180, images=3)
    first[:, :18] += 1  # all that is salient lies on the upper tiles
    index = HiRED(alpha=alpha).apply(view_of(first, last, keep)).index
    assert index.shape == (3, keep)
    assert (index.diff(dim=1) > 0).all()
    for image, chosen in enumerate(index):
        for tile, stays in enumerate(by_tile(chosen)):
            own = last[image].reshape(5, 36)[tile : tile + 1]
            assert stays == top(own, len(stays))[0].tolist()


def test_what_is_salient_is_counted_not_weighed() -> None:
    first, last = torch.zeros(1, 180), drawn(180)[1]
    first[0, [0, 5, 30]] = torch.tensor([0.01, 0.9, 0.02])  # on tiles 1, 2 and 3, the second with most attention
    index = HiRED(alpha=1 - 3 / 36).apply(view_of(first, last, 36)).index[0]
    assert list(map(len, by_tile(index))) == [33, 1, 1, 1, 0]


def test_one_tile_keeps_the_best_attention() -> None:
    first, last = drawn(36)
    index = HiRED().apply(view_of(first, last, 10, Grid(1, 6, 6))).index
    assert torch.equal(index, top(last, 10))


def test_padding_stays_only_where_nothing_else_is_left() -> None:
    grid = Grid(5, 6, 6, across=2, top=3)
    padding = sorted(set(range(180)) - set(grid.sequence.tolist()))
    first, last = drawn(180)
    last[0, padding] += 10
    for keep in (1, 45, 108):
        index = HiRED().apply(view_of(first, last, keep, grid)).index[0].tolist()
        assert len(index) == keep
        assert not set(index) & set(padding)
    assert HiRED().apply(view_of(first, last, 110, grid)).index[0].tolist() == sorted(grid.sequence.tolist() + padding[:2])


def test_ties_go_to_the_lower_index() -> None:
    even = torch.ones(1, 180)
    kept = by_tile(HiRED(alpha=0.3).apply(view_of(even, even, 20)).index[0])
    # the first 25 of the base tile are salient: 9, 9, 4 and 3, so that 14 tokens are 5.04, 5.04, 2.24 and 1.68
    assert kept == [list(range(count)) for count in (6, 5, 5, 2, 2)]


def test_batch_does_not_matter() -> None:
    first, last = drawn(180, images=3)
    together = HiRED().apply(view_of(first, last, 50)).index
    for i in range(3):
        assert torch.equal(HiRED().apply(view_of(first[i : i + 1], last[i : i + 1], 50)).index[0], together[i])


def test_evidence_and_refusals() -> None:
    assert HiRED().needs(CLIP) == {FIRST, LAST}
    with pytest.raises(Unsupported, match="CLS token, and qwen2_5_vl uses none"):
        HiRED().needs(QWEN)
    for alpha in (0.0, 1.0):
        with pytest.raises(UserError, match="alpha"):
            HiRED(alpha=alpha)
