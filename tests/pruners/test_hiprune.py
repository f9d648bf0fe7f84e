"""HiPrune: the golden examples of its specification, exact counts, options, and independence of the batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vtpbench.pruners.base import Cut, Evidence, Grid, ModelShape, TokenView, top
from vtpbench.pruners.errors import BadOption, Infeasible, Unsupported, UserError
from vtpbench.pruners.hiprune import HiPrune

MIDDLE, DEEP = Evidence("received", 8), Evidence("received", 22)
CLIP = ModelShape("llava", 32, 32, 4096, 24, 1024, 22, True, tuple(range(24)))
QWEN = ModelShape("qwen2_5_vl", 28, 28, 3584, 32, 1280, 31, False, (7, 15, 23, 31), True)
SHALLOW_4X4 = [0.02, 0.03, 0.05, 0.30, 0.04, 0.05, 0.06, 0.05, 0.04, 0.05, 0.06, 0.05, 0.04, 0.05, 0.06, 0.05]
DEEP_4X4 = [0.01, 0.20, 0.09, 0.12, 0.02, 0.03, 0.11, 0.08, 0.02, 0.10, 0.02, 0.03, 0.04, 0.05, 0.06, 0.02]


def view_of(middle: torch.Tensor, deep: torch.Tensor, keep: int, grid: Grid, has_cls: bool = True) -> TokenView:
    images = len(middle)
    return TokenView(
        cut=Cut(0, keep),
        stage=0,
        features=torch.zeros(images, grid.n, 1),
        index=torch.arange(grid.n).expand(images, -1),
        grid=grid,
        shape=CLIP if has_cls else replace(CLIP, has_cls=False),
        keys=tuple(map(str, range(images))),
        evidence={DEEP: deep, MIDDLE: middle},
        cls=torch.zeros(images, grid.tiles, 1) if has_cls else None,
    )


def golden_view(keep: int = 8) -> TokenView:
    return view_of(torch.tensor([SHALLOW_4X4]), torch.tensor([DEEP_4X4]), keep, Grid(1, 4, 4))


def random_view(keep: int, grid: Grid, images: int = 2, has_cls: bool = True) -> TokenView:
    draw = torch.Generator().manual_seed(keep)
    middle, deep = torch.rand(2, images, grid.n, generator=draw)
    return view_of(middle, deep, keep, grid, has_cls)


def test_golden() -> None:
    assert HiPrune(alpha=0.5).apply(golden_view()).index.tolist() == [[0, 1, 2, 3, 4, 6, 7, 9]]
    assert HiPrune(alpha=0.5, neighbours="grid").apply(golden_view()).index.tolist() == [[1, 2, 3, 6, 7, 9, 13, 14]]


def test_compat_loses_tokens_to_attention_sinks() -> None:
    deep = 16 * torch.tensor([DEEP_4X4])
    deep[0, 3] = 5.0
    view = view_of(torch.tensor([SHALLOW_4X4]), deep, 8, Grid(1, 4, 4), has_cls=False)
    keep = HiPrune(alpha=0.5, compat=True).apply(view)
    assert keep.valid is not None
    assert keep.index[keep.valid].tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert keep.k == 8
    assert HiPrune(alpha=0.5).apply(view).valid is None
    assert HiPrune(alpha=0.5).apply(view).index.tolist() == [[0, 1, 2, 3, 4, 6, 7, 9]]


def test_compat_changes_nothing_where_attention_is_a_mean() -> None:
    keep = HiPrune(alpha=0.5, compat=True).apply(golden_view())
    assert keep.valid is None
    assert keep.index.tolist() == HiPrune(alpha=0.5).apply(golden_view()).index.tolist()


@pytest.mark.parametrize(
    ("budget", "anchors"), [(192, 4), (128, 3), (64, 1), (32, 1), (134, 3), (89, 2), (45, 1), (25, 0), (75, 2)]
)
def test_number_of_anchors(budget: int, anchors: int) -> None:
    """Half rounds to even, as in 25 and 75; anchors lie far apart here, so that none is another's neighbour."""
    middle = torch.zeros(1, 600)
    middle[0, [62, 188, 312, 438, 552, 74, 200]] = torch.arange(7.0, 0, -1)
    marked = HiPrune().marked(view_of(middle, torch.zeros(1, 600), budget, Grid(1, 25, 24)))
    assert marked.sum() == 5 * anchors


@pytest.mark.parametrize("neighbours", ["flat", "grid"])
@pytest.mark.parametrize(
    ("budget", "grid"),
    [(b, Grid(1, 12, 12)) for b in (1, 16, 32, 48, 144)]
    + [(b, Grid(1, 24, 24)) for b in (192, 128, 64)]
    + [(b, Grid(5, 24, 24)) for b in (640, 320, 160)],
)
def test_counts_are_exact_and_ascending(budget: int, grid: Grid, neighbours: str) -> None:
    index = HiPrune(neighbours=neighbours).apply(random_view(budget, grid)).index  # type: ignore[arg-type] # parametrised
    assert index.shape == (2, budget)
    assert (index.diff(dim=1) > 0).all()
    shares = (index // (grid.n // grid.tiles)).flatten().bincount(minlength=grid.tiles)
    assert shares.tolist() == [2 * budget // grid.tiles] * grid.tiles


def test_anchors_stay_and_none_means_registers_only() -> None:
    view = random_view(100, Grid(1, 24, 24))
    index = HiPrune(alpha=0.5).apply(view).index
    for row, anchors in zip(index.tolist(), top(view.evidence[MIDDLE], 10).tolist(), strict=True):
        assert set(anchors) <= set(row)
    assert torch.equal(HiPrune(alpha=0).apply(view).index, top(view.evidence[DEEP], 100))


@pytest.mark.parametrize("grid", [Grid(1, 6, 1), Grid(1, 1, 6), Grid(1, 3, 2), Grid(1, 3, 3)])
def test_neighbours_stay_inside_the_picture(grid: Grid) -> None:
    for anchor in range(grid.n):
        middle = torch.zeros(1, grid.n)
        middle[0, anchor] = 1
        view = view_of(middle, torch.zeros(1, grid.n), 5, grid)
        marked = HiPrune(alpha=1, neighbours="grid").marked(view)[0].nonzero().flatten().tolist()
        row, column = divmod(anchor, grid.width)
        near = [(row, column), (row, column - 1), (row, column + 1), (row - 1, column), (row + 1, column)]
        inside = [(r, c) for r, c in near if 0 <= r < grid.height and 0 <= c < grid.width]
        assert marked == sorted(r * grid.width + c for r, c in inside)


def test_too_many_anchors_are_refused() -> None:
    with pytest.raises(Infeasible, match="lower alpha"):
        HiPrune(alpha=1).apply(golden_view(keep=8))
    assert HiPrune(alpha=1).apply(golden_view(keep=10)).k == 10


def test_cuts_refuse_what_the_choice_would() -> None:
    pruner, two = HiPrune(alpha=1), replace(CLIP, tiles=2)
    assert pruner.cuts(20, 1152, two) == (Cut(0, 20),)
    with pytest.raises(Infeasible, match="2 anchors and their neighbours can exceed a budget of 8; lower alpha"):
        pruner.cuts(16, 1152, two)
    with pytest.raises(Infeasible, match="a budget of 41 cannot be shared equally by 2 tiles"):
        pruner.cuts(41, 1152, two)
    assert pruner.cuts(16, 1152, CLIP) == (Cut(0, 16),), "how many tiles there are is not known"


@pytest.mark.parametrize("compat", [False, True])
def test_batch_does_not_matter(compat: bool) -> None:
    view = random_view(50, Grid(1, 12, 12), images=3, has_cls=False)
    pruner = HiPrune(alpha=0.5, compat=compat)
    together = pruner.apply(view)
    for i in range(3):
        one = slice(i, i + 1)
        alone = pruner.apply(view_of(view.evidence[MIDDLE][one], view.evidence[DEEP][one], 50, view.grid, has_cls=False))
        assert torch.equal(alone.index, together.index[one])
        if compat:
            assert alone.valid is not None
            assert together.valid is not None
            assert torch.equal(alone.valid, together.valid[one])


def test_layers_follow_the_tower() -> None:
    assert HiPrune().needs(CLIP) == {MIDDLE, DEEP}
    assert HiPrune().needs(QWEN) == {Evidence("received", 15), Evidence("received", 31)}
    assert HiPrune(object_layer=11).needs(CLIP) == {Evidence("received", 11), DEEP}
    with pytest.raises(UserError, match=r"choose from \[7, 15, 23, 31\]"):
        HiPrune(object_layer=11).needs(QWEN)
    with pytest.raises(Unsupported, match="full attention"):
        HiPrune().needs(replace(QWEN, feature_layer=30))


@pytest.mark.parametrize("options", [{"alpha": 1.5}, {"alpha": -0.1}, {"neighbours": "gird"}])
def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(BadOption) as error:
        HiPrune(**options)  # type: ignore[arg-type] # wrong on purpose
    assert error.value.option in options
