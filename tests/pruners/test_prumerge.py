"""PruMerge and PruMerge+: the golden example of their specification, counts, order, linearity, and independence of batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vtpbench.pruners.base import Cut, Evidence, Grid, ModelShape, Selection, TokenView
from vtpbench.pruners.errors import Unsupported, UserError
from vtpbench.pruners.prumerge import PruMerge
from vtpbench.pruners.prumerge_plus import PruMergePlus
from vtpbench.pruners.ranking import outliers

CLS, KEYS = Evidence("cls_one_head", 23), Evidence("keys_all_heads", 23)
CLIP = ModelShape("llava", 32, 32, 4096, 24, 1024, 22, True, tuple(range(24)), tiles=1)
QWEN = ModelShape("qwen2_5_vl", 28, 28, 3584, 32, 1280, 31, False, (7, 15, 23, 31), True)
ATTENTION = [0.05, 0.06, 0.30, 0.05, 0.07, 0.05, 0.25, 0.06]
DIRECTIONS = [[1, 0], [0.9, 0.3], [1, 0.1], [0, 1], [0.1, 1], [0.5, 0.5], [0, 1.1], [0.6, 0.4]]


def view_of(attention: Tensor, keys: Tensor, features: Tensor, keep: int, grid: Grid | None = None) -> TokenView:
    images, n = attention.shape
    index, names = torch.arange(n).expand(images, -1), tuple(map(str, range(images)))
    evidence = {CLS: attention, KEYS: keys}
    return TokenView(Cut(0, keep), 0, features, index, grid or Grid(1, 1, n), CLIP, names, evidence)


def golden(keep: int) -> TokenView:
    features = torch.arange(1.0, 9).reshape(1, 8, 1)
    return view_of(torch.tensor([ATTENTION]), torch.tensor([DIRECTIONS]), features, keep)


def random_view(keep: int, grid: Grid, images: int = 2) -> TokenView:
    draw = torch.Generator().manual_seed(keep)
    attention = torch.randn(images, grid.n, generator=draw).mul(2).softmax(dim=-1)
    keys, features = (torch.randn(images, grid.n, width, generator=draw) for width in (6, 4))
    return view_of(attention, keys, features, keep, grid)


def rows(keep: Selection) -> Tensor:
    assert keep.features is not None
    return keep.features


def test_golden() -> None:
    """By hand: 3 + .05 * 1 + .06 * 2, 7 + .05 * 4 + .07 * 5, and the six others times their attention."""
    keep = PruMerge(neighbours=2).apply(golden(3))
    assert keep.index.tolist() == [[2, 6, 4]]
    torch.testing.assert_close(rows(keep).flatten(), torch.tensor([3.17, 7.55, 1.50]))


def test_golden_outliers() -> None:
    assert outliers(torch.tensor([ATTENTION])).tolist() == [[2]]
    keep = PruMerge(neighbours=2, count="outliers").apply(golden(7))
    assert keep.valid is not None
    assert keep.index[keep.valid].tolist() == [2, 6, 4]
    torch.testing.assert_close(rows(keep)[keep.valid].flatten(), torch.tensor([3.17, 7.55, 1.50]))
    fewer = PruMerge(neighbours=2, count="outliers").apply(golden(2))
    assert fewer.valid is not None
    assert fewer.index[fewer.valid].tolist() == [2, 6], "never more than the budget, the last token included"


def test_golden_spread() -> None:
    assert PruMergePlus().apply(golden(5)).index.tolist() == [[1, 2, 4, 6, 7]]  # 2 by attention; the last stands for 0, 3, 5, 7


@pytest.mark.parametrize(
    ("budget", "by_attention", "spread"), [(192, 48, 143), (128, 32, 95), (64, 16, 47), (3, 1, 1), (2, 1, 0)]
)
def test_a_quarter_is_chosen_by_attention_and_the_rest_covers_the_tile(budget: int, by_attention: int, spread: int) -> None:
    attention = torch.arange(576.0, 0, -1)[None]  # the first tokens have most
    keys = torch.randn(1, 576, 4, generator=torch.Generator().manual_seed(0))
    chosen = PruMergePlus().apply(view_of(attention, keys, keys, budget, Grid(1, 24, 24))).index[0, :-1]
    assert chosen[:by_attention].tolist() == list(range(by_attention))
    grid = chosen[by_attention:]
    assert len(grid) == spread
    if spread > 1:
        steps = grid.diff()
        assert steps.max() - steps.min() <= 1
        assert 575 - grid[-1] <= steps.max()


@pytest.mark.parametrize(("found", "most"), [(32, 129), (48, 193), (64, 257)])
def test_the_grid_of_the_authors(found: int, most: int) -> None:
    """Three times the outliers, and the last token."""
    attention = torch.full((1, 576), 0.001)
    attention[0, -found:] = 0.1
    keys = torch.randn(1, 576, 4, generator=torch.Generator().manual_seed(0))
    assert outliers(attention).tolist() == [[found]]
    keep = PruMergePlus(count="outliers").apply(view_of(attention, keys, keys, 400, Grid(1, 24, 24)))
    assert keep.valid is not None
    stride = 576 // found // 3
    own = sorted({*range(576 - found, 576), *range(0, 575, stride)})
    assert keep.index[keep.valid].tolist()[:-1] == own
    assert most - found <= len(own) + 1 <= most
    tight = PruMergePlus(count="outliers").apply(view_of(attention, keys, keys, 100, Grid(1, 24, 24)))
    assert tight.valid is not None
    assert tight.valid.all(), "where the budget holds fewer, its own choice covers the tile"


def test_an_image_without_outliers() -> None:
    view = golden(6)
    even = replace(view, evidence={CLS: torch.full((1, 8), 0.1), KEYS: view.evidence[KEYS]})
    for pruner, left in ((PruMerge(count="outliers"), [0]), (PruMergePlus(count="outliers"), [0, 2, 4, 6, 1])):
        keep = pruner.apply(even)
        assert keep.valid is not None
        assert keep.index[keep.valid].tolist() == left


@pytest.mark.parametrize("pruner", [PruMerge(), PruMergePlus()])
@pytest.mark.parametrize(
    ("budget", "grid"), [(b, Grid(1, 12, 12)) for b in (1, 2, 16, 143)] + [(b, Grid(5, 6, 6)) for b in (5, 10, 45, 175)]
)
def test_counts_are_exact_and_every_tile_has_one_token_for_the_rest(pruner: PruMerge, budget: int, grid: Grid) -> None:
    view = random_view(budget, grid)
    keep = pruner.apply(view)
    assert rows(keep).shape == (2, budget, 4)
    per_tile, share = grid.n // grid.tiles, budget // grid.tiles
    for image in range(2):
        index = keep.index[image].tolist()
        assert len(set(index)) == budget
        assert sorted(i // per_tile for i in index) == [tile for tile in range(grid.tiles) for _ in range(share)]
    rest = [share - 1, *range(budget - grid.tiles + 1, budget)]  # the base tile's, then those of the others
    for tile, row in enumerate(rest):
        own = slice(tile * per_tile, (tile + 1) * per_tile)
        dropped = torch.ones(2, per_tile, dtype=torch.bool)
        centres = [
            [i % per_tile for n, i in enumerate(index) if i // per_tile == tile and n != row] for index in keep.index.tolist()
        ]
        for image in range(2):
            dropped[image, centres[image]] = False
        expected = (view.features[:, own] * (view.evidence[CLS][:, own] * dropped)[..., None]).sum(dim=1)
        torch.testing.assert_close(rows(keep)[:, row], expected)


def test_neighbours_are_added_one_by_one() -> None:
    """Step by step: for each centre, kept tokens count as candidates, and all features are those that arrived."""
    view = random_view(20, Grid(1, 10, 10), images=1)
    attention, keys, features = view.evidence[CLS][0], view.evidence[KEYS][0], view.features[0]
    keep = PruMerge(neighbours=7).apply(view)
    for row, i in zip(rows(keep)[0, :-1], keep.index[0, :-1].tolist(), strict=True):
        likeness = torch.cosine_similarity(keys, keys[i : i + 1])
        near = [j for j in likeness.argsort(descending=True).tolist() if j != i][:7]
        torch.testing.assert_close(row, features[i] + sum(attention[j] * features[j] for j in near))


def test_the_authors_order_is_by_attention_then_by_place() -> None:
    assert PruMerge(order="reference").apply(golden(4)).index.tolist() == [[2, 6, 4, 1]]
    assert PruMergePlus(order="reference").apply(golden(5)).index.tolist() == [[2, 1, 4, 6, 7]]
    view = random_view(30, Grid(1, 12, 12))
    ours, theirs = PruMerge().apply(view), PruMerge(order="reference").apply(view)
    order = theirs.index[:, :-1].argsort(dim=1)
    assert torch.equal(theirs.index[:, :-1].gather(1, order), ours.index[:, :-1])
    torch.testing.assert_close(rows(theirs)[:, :-1].gather(1, order[..., None].expand(-1, -1, 4)), rows(ours)[:, :-1])
    with pytest.raises(Unsupported, match="use order 'raster'"):
        PruMerge(order="reference").cuts(640, 2880, replace(CLIP, tiles=5))


def test_rows_are_linear_in_features_and_blind_to_the_scale_of_keys() -> None:
    view, factors = random_view(32, Grid(1, 12, 12)), torch.arange(1.0, 145)[None, :, None]
    keep = PruMerge().apply(view)
    torch.testing.assert_close(rows(PruMerge().apply(replace(view, features=3 * view.features))), 3 * rows(keep))
    louder = PruMerge().apply(replace(view, evidence={CLS: view.evidence[CLS], KEYS: view.evidence[KEYS] * factors}))
    assert torch.equal(louder.index, keep.index)
    torch.testing.assert_close(rows(louder), rows(keep))


def test_a_budget_of_all_tokens_merges_none() -> None:
    keep = PruMerge().apply(golden(8))
    assert keep.features is None
    assert keep.index.tolist() == [list(range(8))]


@pytest.mark.parametrize("pruner", [PruMerge(), PruMergePlus(), PruMergePlus(count="outliers")])
def test_batch_does_not_matter(pruner: PruMerge) -> None:
    view = random_view(48, Grid(1, 12, 12), images=3)
    together = pruner.apply(view)
    for i in range(3):
        one = slice(i, i + 1)
        alone = pruner.apply(view_of(view.evidence[CLS][one], view.evidence[KEYS][one], view.features[one], 48, view.grid))
        assert torch.equal(alone.index, together.index[one])
        torch.testing.assert_close(rows(alone), rows(together)[one])


def test_evidence_follows_the_tower() -> None:
    assert PruMerge().needs(CLIP) == {CLS, KEYS}
    assert PruMerge().needs(replace(CLIP, feature_layer=23)) == {CLS, KEYS}
    assert PruMerge().needs(QWEN) == {Evidence("received", 31), Evidence("keys_all_heads", 31)}
    with pytest.raises(Unsupported, match="full attention"):
        PruMerge().needs(replace(QWEN, feature_layer=30))


@pytest.mark.parametrize("options", [{"neighbours": -1}, {"count": "all"}, {"order": "random"}])
def test_unusable_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match="use"):
        PruMerge(**options)  # type: ignore[arg-type]  # the mistake under test
