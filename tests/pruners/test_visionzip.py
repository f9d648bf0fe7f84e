"""VisionZip: the golden example of its specification, exact counts, order, and independence of scale and batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vtpbench.pruners.base import Cut, Evidence, Grid, ModelShape, Selection, TokenView
from vtpbench.pruners.errors import Infeasible, Unsupported
from vtpbench.pruners.visionzip import VisionZip

CLS, RECEIVED, KEYS = Evidence("cls", 22), Evidence("received", 22), Evidence("keys", 22)
CLIP = ModelShape("llava", 32, 32, 4096, 24, 1024, 22, True, tuple(range(24)))
QWEN = ModelShape("qwen2_5_vl", 28, 28, 3584, 32, 1280, 31, False, (7, 15, 23, 31), True)


def random_view(keep: int, grid: Grid, images: int = 2, has_cls: bool = True) -> TokenView:
    draw = torch.Generator().manual_seed(keep)
    features = torch.randn(images, grid.n, 5, generator=draw)
    evidence = {
        CLS if has_cls else RECEIVED: torch.rand(images, grid.n, generator=draw),
        KEYS: torch.randn(images, grid.n, 4, generator=draw),
    }
    cls = torch.randn(images, grid.tiles, 5, generator=draw) if has_cls else None
    index = torch.arange(grid.n).expand(images, -1)
    return TokenView(Cut(0, keep), 0, features, index, grid, CLIP, tuple(map(str, range(images))), evidence, cls)


def golden_view(keep: int = 5) -> TokenView:
    heads = [[0.05, 0.30, 0.05, 0.10, 0.20, 0.05, 0.10, 0.05], [0.05, 0.10, 0.15, 0.05, 0.25, 0.05, 0.10, 0.05]]
    keys = [[1, 0], [9, 9], [0, 1], [2, 1], [9, 9], [1, 3], [4, 1], [0, 2]]
    return TokenView(
        cut=Cut(0, keep),
        stage=0,
        features=torch.arange(1.0, 9.0).reshape(1, 8, 1),
        index=torch.arange(8)[None],
        grid=Grid(1, 2, 4),
        shape=CLIP,
        keys=("a",),
        evidence={CLS: torch.tensor(heads).mean(0, keepdim=True), KEYS: torch.tensor(keys).float()[None]},
        cls=torch.full((1, 1, 1), 100.0),
    )


def rows(keep: Selection) -> torch.Tensor:
    assert keep.features is not None
    return keep.features


def test_golden() -> None:
    keep = VisionZip(contextual=2).apply(golden_view())
    assert keep.index.tolist() == [[-1, 1, 4, 0, 5]]
    assert rows(keep).flatten().tolist() == [100, 2, 5, 6.5, 11.5]


def test_golden_without_cls_stands_in_raster_order() -> None:
    view = golden_view(keep=4)
    view = replace(view, cls=None, evidence={RECEIVED: view.evidence[CLS], KEYS: view.evidence[KEYS]})
    keep = VisionZip(contextual=2).apply(view)
    assert keep.index.tolist() == [[0, 1, 4, 5]]
    assert rows(keep).flatten().tolist() == [6.5, 2, 5, 11.5]


def test_a_target_that_nothing_joins_stays_as_it_is() -> None:
    view = golden_view()
    keys = torch.tensor([[1.0, 0]] * 5 + [[0.0, 1]] + [[1.0, 0]] * 2)[None]
    keep = VisionZip(contextual=2).apply(replace(view, evidence={**view.evidence, KEYS: keys}))
    assert rows(keep).flatten().tolist() == [100, 2, 5, 1 + (3 + 4 + 7 + 8) / 4, 6]


@pytest.mark.parametrize(("budget", "split"), [(192, (162, 30)), (128, (108, 20)), (64, (54, 10)), (32, (27, 5)), (1, (1, 0))])
def test_published_splits(budget: int, split: tuple[int, int]) -> None:
    assert VisionZip().split(budget) == split


@pytest.mark.parametrize(
    ("budget", "grid"),
    [(b, Grid(1, 12, 12)) for b in (16, 32, 48, 1, 144)]
    + [(b, Grid(1, 24, 24)) for b in (192, 128, 64)]
    + [(b, Grid(5, 24, 24)) for b in (640, 320, 160)],
)
def test_counts_are_exact(budget: int, grid: Grid) -> None:
    keep = VisionZip().apply(random_view(budget, grid))
    assert rows(keep).shape == (2, budget, 5)
    for index in keep.index.tolist():
        places = [i for i in index if i >= 0]
        assert len(index) - len(places) == grid.tiles  # one CLS per tile
        assert len(set(places)) == len(places)
        assert max(places, default=0) < grid.n


@pytest.mark.parametrize("budget", [1, 2, 16, 47, 143])
def test_without_cls_the_order_is_raster(budget: int) -> None:
    keep = VisionZip().apply(random_view(budget, Grid(1, 12, 12), has_cls=False))
    assert keep.index.shape == (2, budget)
    assert (keep.index.diff(dim=1) > 0).all()


def test_tiles_are_ordered_as_in_the_authors_code() -> None:
    view = random_view(60, Grid(3, 6, 6), images=1)
    assert view.cls is not None
    keep = VisionZip().apply(view)  # 20 a tile: CLS, 16 dominant patches, 3 contextual
    tile = (keep.index[0] // 36).tolist()
    assert tile == [-1] + [0] * 19 + [1] * 16 + [2] * 16 + [-1] * 2 + [1] * 3 + [2] * 3
    assert torch.equal(rows(keep)[0, [0, 52, 53]], view.cls[0])
    patches = keep.index[0, 20:52]
    assert torch.equal(rows(keep)[0, 20:52], view.features[0, patches])
    evidence = {name: value[:, 72:] for name, value in view.evidence.items()}
    last = TokenView(
        Cut(0, 20), 0, view.features[:, 72:], view.index[:, :36], Grid(1, 6, 6), CLIP, ("t",), evidence, view.cls[:, 2:]
    )
    alone = VisionZip().apply(last)
    assert torch.equal(keep.index[0, 36:52], alone.index[0, 1:17] + 72)
    assert torch.allclose(rows(keep)[0, -3:], rows(alone)[0, -3:])


def test_in_the_authors_order_contextual_tokens_have_no_place() -> None:
    view = random_view(60, Grid(3, 6, 6))
    ours, theirs = VisionZip().apply(view), VisionZip(order="reference").apply(view)
    assert torch.equal(rows(ours), rows(theirs)), "tile by tile; who joins the tiles orders those that have a place"
    contextual = torch.tensor([17, 18, 19, *range(54, 60)])
    assert (theirs.index[:, contextual] == -1).all()
    others = [n for n in range(60) if n not in contextual]
    assert torch.equal(theirs.index[:, others], ours.index[:, others])
    one = random_view(20, Grid(1, 6, 6))
    assert torch.equal(VisionZip(order="reference").apply(one).index, VisionZip().apply(one).index)


def test_nothing_to_merge_is_plain_selection() -> None:
    view = golden_view(keep=3)
    keep = VisionZip(contextual=0).apply(view)
    assert keep.index.tolist() == [[-1, 1, 4]]
    assert rows(keep).flatten().tolist() == [100, 2, 5]


def test_more_contextual_tokens_than_remain_is_an_error() -> None:
    with pytest.raises(Infeasible, match="lower the budget"):
        VisionZip(contextual=7).apply(golden_view(keep=10))
    with pytest.raises(Infeasible, match="lower `contextual`"):
        VisionZip(contextual=5).apply(golden_view(keep=5))


def test_cuts_refuse_what_the_choice_would() -> None:
    pruner, five = VisionZip(contextual=8), replace(CLIP, tiles=5)
    assert pruner.cuts(45, 2880, five) == (Cut(0, 45),)
    with pytest.raises(Infeasible, match="8 contextual tokens leave none of 8"):
        pruner.cuts(40, 2880, five)
    with pytest.raises(Infeasible, match="a budget of 46 cannot be shared equally by 5 tiles; use a multiple of 5"):
        pruner.cuts(46, 2880, five)
    assert pruner.cuts(46, 2880, CLIP) == (Cut(0, 46),), "how many tiles there are is not known"


def test_key_scale_changes_nothing_and_contextual_rows_are_linear() -> None:
    view = random_view(32, Grid(1, 12, 12))
    assert view.cls is not None
    keep = VisionZip().apply(view)
    louder = VisionZip().apply(replace(view, evidence={CLS: view.evidence[CLS], KEYS: 4 * view.evidence[KEYS]}))
    assert torch.equal(louder.index, keep.index)
    assert torch.equal(rows(louder), rows(keep))
    doubled = VisionZip().apply(replace(view, features=2 * view.features, cls=2 * view.cls))
    assert torch.equal(rows(doubled), 2 * rows(keep))


def test_batch_does_not_matter() -> None:
    view = random_view(48, Grid(1, 12, 12), images=3)
    assert view.cls is not None
    together = VisionZip().apply(view)
    for i in range(3):
        one = slice(i, i + 1)
        evidence = {name: value[one] for name, value in view.evidence.items()}
        alone = VisionZip().apply(
            replace(view, features=view.features[one], index=view.index[one], evidence=evidence, cls=view.cls[one])
        )
        assert torch.equal(alone.index, together.index[one])
        assert torch.allclose(rows(alone), rows(together)[one], atol=1e-6)


def test_evidence_follows_the_tower() -> None:
    assert VisionZip().needs(CLIP) == {CLS, KEYS}
    assert VisionZip().needs(QWEN) == {Evidence("received", 31), Evidence("keys", 31)}
    with pytest.raises(Unsupported, match="full attention"):
        VisionZip().needs(replace(QWEN, feature_layer=30))
