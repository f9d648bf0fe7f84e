"""The floors: uniform grid, pooling, text only, downsampling."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from vtpbench.pruners.base import Cut, Grid, ModelShape, TokenView
from vtpbench.pruners.cells import cell_rows, cells, largest_cell
from vtpbench.pruners.downsample import Downsample
from vtpbench.pruners.errors import Infeasible
from vtpbench.pruners.grid import UniformGrid
from vtpbench.pruners.pool import Pool
from vtpbench.pruners.text_only import TextOnly

CPU = torch.device("cpu")
CLIP = ModelShape("llava", 32, 32, 4096, 24, 1024, 22, True, tuple(range(24)))
BUDGETS = (
    [(b, Grid(1, 12, 12)) for b in (1, 16, 32, 48, 97, 144)]
    + [(b, Grid(1, 24, 24)) for b in (192, 128, 64)]
    + [(b, Grid(5, 24, 24)) for b in (640, 320, 160)]
)


def view_of(features: Tensor, keep: int, grid: Grid) -> TokenView:
    images = len(features)
    index = torch.arange(grid.n).expand(images, -1)
    return TokenView(Cut(0, keep), 0, features, index, grid, CLIP, tuple(map(str, range(images))))


def random_view(keep: int, grid: Grid, images: int = 2) -> TokenView:
    return view_of(torch.randn(images, grid.n, 3, generator=torch.Generator().manual_seed(keep)), keep, grid)


@pytest.mark.parametrize(
    ("keep", "height", "width", "ids"),
    [(4, 4, 4, [0, 2, 8, 10]), (5, 4, 4, [0, 2, 8, 9, 10]), (7, 3, 5, [0, 2, 3, 5, 6, 7, 8])],
)
def test_golden_ids(keep: int, height: int, width: int, ids: list[int]) -> None:
    grid = Grid(1, height, width)
    view = view_of(torch.zeros(2, grid.n, 1), keep, grid)
    assert UniformGrid().apply(view).index.tolist() == [ids, ids]
    assert Pool().apply(view).index.tolist() == [ids, ids]


@pytest.mark.parametrize(("keep", "means"), [(4, [2.5, 4.5, 10.5, 12.5]), (5, [2.5, 4.5, 10.5, 11.5, 12.5])])
def test_golden_means(keep: int, means: list[float]) -> None:
    pooled = Pool().apply(view_of(torch.arange(16.0).reshape(1, 16, 1), keep, Grid(1, 4, 4))).features
    assert pooled is not None
    assert pooled.flatten().tolist() == means


@pytest.mark.parametrize(
    ("keep", "height", "width", "rows"), [(192, 24, 24, 12), (128, 24, 24, 8), (64, 24, 24, 8), (32, 24, 24, 4), (97, 20, 30, 8)]
)
def test_cell_rows(keep: int, height: int, width: int, rows: int) -> None:
    assert cell_rows(keep, height, width) == rows


def test_cells_are_exact_distinct_and_cover_every_grid() -> None:
    for height in range(1, 8):
        for width in range(1, 8):
            for k in range(1, height * width + 1):
                division = cells(k, height, width, CPU)
                ids, real = division.members(largest_cell(k, height, width))
                centres = division.centre.tolist()
                assert len(centres) == k
                assert centres == sorted(set(centres))
                assert ((ids == division.centre[:, None]) & real).any(dim=1).all()
                assert real.sum(dim=1).tolist() == division.count.tolist()
                assert real.all(dim=0).any()
                assert set(ids[real].tolist()) == set(ids.flatten().tolist()) == set(range(height * width))


@pytest.mark.parametrize("k", [0, 17])
def test_impossible_counts_are_refused(k: int) -> None:
    with pytest.raises(Infeasible, match="from 1 to 16"):
        cells(k, 4, 4, CPU)


@pytest.mark.parametrize(("budget", "grid"), BUDGETS)
def test_counts_are_exact_and_ascending(budget: int, grid: Grid) -> None:
    view = random_view(budget, grid)
    for keep in (UniformGrid().apply(view), Pool().apply(view)):
        assert keep.index.shape == (2, budget)
        assert (keep.index.diff(dim=1) > 0).all()
    assert Pool().apply(view).features.shape == (2, budget, 3)  # type: ignore[union-attr] # pooling always gives features


@pytest.mark.parametrize("budget", [192, 128, 64])
def test_pooling_is_adaptive_pooling_where_rows_are_equal(budget: int) -> None:
    view = random_view(budget, Grid(1, 24, 24))
    rows = cell_rows(budget, 24, 24)
    picture = view.features.mT.reshape(2, 3, 24, 24)
    expected = adaptive_avg_pool2d(picture, (rows, budget // rows)).flatten(2).mT
    pooled = Pool().apply(view).features
    assert pooled is not None
    assert torch.allclose(pooled, expected, atol=1e-6)


def test_keeping_all_changes_nothing() -> None:
    view = random_view(144, Grid(1, 12, 12))
    pooled = Pool().apply(view).features
    assert pooled is not None
    assert torch.equal(pooled, view.features)
    assert torch.equal(UniformGrid().apply(view).index, view.index)


def test_tiles_are_treated_alike() -> None:
    view = random_view(30, Grid(5, 6, 6), images=1)
    one = UniformGrid().apply(view_of(view.features[:, :36], 6, Grid(1, 6, 6))).index
    assert torch.equal(UniformGrid().apply(view).index, torch.cat([one + 36 * t for t in range(5)], dim=1))
    with pytest.raises(Infeasible, match="multiple of 5"):
        UniformGrid().apply(random_view(31, Grid(5, 6, 6)))


def test_pooling_does_not_depend_on_the_batch() -> None:
    view = random_view(50, Grid(1, 12, 12), images=3)
    together = Pool().apply(view).features
    assert together is not None
    for i in range(3):
        alone = Pool().apply(view_of(view.features[i : i + 1], 50, view.grid)).features
        assert alone is not None
        assert torch.equal(alone, together[i : i + 1])


@pytest.mark.parametrize("budget", [1, 64, 192])
def test_text_only_keeps_nothing_at_any_budget(budget: int) -> None:
    cuts = TextOnly().cuts(budget, 576, CLIP)
    assert cuts == (Cut(0, 0),)
    keep = TextOnly().apply(random_view(cuts[0].keep, Grid(1, 12, 12)))
    assert keep.index.shape == (2, 0)
    assert keep.index.dtype == torch.int64


@pytest.mark.parametrize(
    ("budget", "grid", "expected"),
    [
        (192, Grid(1, 24, 24), (12, 16)),
        (128, Grid(1, 24, 24), (8, 16)),
        (64, Grid(1, 24, 24), (8, 8)),
        (576, Grid(1, 24, 24), (24, 24)),
        (48, Grid(1, 12, 12), (6, 8)),
        (640, Grid(5, 24, 24), (8, 16)),
        (97, Grid(1, 20, 30), (8, 12)),
        (58, Grid(1, 20, 30), (7, 8)),
        (58, Grid(1, 30, 20), (8, 7)),
    ],
)
def test_downsampling_grid(budget: int, grid: Grid, expected: tuple[int, int]) -> None:
    assert Downsample().target_grid(budget, grid, CLIP) == expected
    assert Downsample().cuts(budget, grid.n, CLIP) == ()


def test_downsampling_never_exceeds_the_budget_nor_the_image() -> None:
    for grid in (Grid(1, 24, 24), Grid(1, 7, 31), Grid(1, 40, 3), Grid(1, 1, 9)):
        for budget in range(1, grid.n + 1):
            height, width = Downsample().target_grid(budget, grid, CLIP)
            assert 1 <= height * width <= budget
            assert height <= grid.height
            assert width <= grid.width


def test_downsampling_refuses_unequal_shares() -> None:
    with pytest.raises(Infeasible, match="multiple of 5"):
        Downsample().target_grid(161, Grid(5, 24, 24), CLIP)
