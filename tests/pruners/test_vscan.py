"""VScan: the golden examples of its specification, its schedule, and what merging does."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from vtpbench.pruners.base import Cut, Evidence, Grid, ModelShape, Selection, TokenView, average_in, top
from vtpbench.pruners.errors import Infeasible, Unsupported, UserError
from vtpbench.pruners.vscan import VScan
from vtpbench.pruners.vscan.tower import choose_local, merge_into

PROJECTED, ROW = Evidence("projected"), Evidence("row", 0)
CLIP = ModelShape("llava", 32, 32, 8, 24, 8, 22, True, tuple(range(24)), tiles=1)
QWEN = ModelShape("qwen2_5_vl", 28, 28, 8, 32, 8, 31, False, (7, 15, 23, 31), True, tiles=1)
CLS, RECEIVED = (Evidence("cls", 5), Evidence("cls", 22)), (Evidence("received", 7), Evidence("received", 31))


def view_of(near: Tensor, deep: Tensor, rows: Tensor, keep: int, grid: Grid, shape: ModelShape = CLIP) -> TokenView:
    images, n = near.shape
    layers = CLS if shape.has_cls else RECEIVED
    return TokenView(
        cut=Cut(0, keep),
        stage=0,
        features=torch.zeros(images, n, 3),
        index=torch.arange(n).expand(images, -1),
        grid=grid,
        shape=shape,
        keys=tuple(map(str, range(images))),
        evidence={layers[0]: near, layers[1]: deep, PROJECTED: rows},
    )


def drawn(seed: int, n: int, images: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    near, deep = (torch.randn(images, n, generator=draw).softmax(-1) for _ in range(2))
    return near, deep, torch.randn(images, n, 8, generator=draw)


def rows_of(keep: Selection) -> Tensor:
    assert keep.features is not None
    assert keep.projected
    return keep.features


def test_golden_merge() -> None:
    rows = torch.tensor([[1, 0], [0.9, 0.1], [0, 1], [0.2, 0.9], [1, 0.8]])[None]
    merged = merge_into(torch.tensor([[0, 2]]), rows)
    torch.testing.assert_close(merged, torch.tensor([[[2.9 / 3, 0.3], [0.1, 0.95]]]))


def test_golden_with_cls() -> None:
    near, deep, rows = drawn(21, 576)
    local = [75, 57, 134, 71, 268, 201, 182, 166, 387, 342, 303, 359, 531, 512, 540, 454]
    others = [90, 99, 103, 115, 122, 129, 159, 181, 244, 308, 335, 341, 402, 463, 536, 545]
    assert choose_local(near, 24, 24, 16, equally=True).tolist() == [local]
    assert VScan().apply(view_of(near, deep, rows, 32, Grid(1, 24, 24))).index.tolist() == [sorted(local + others)]


def test_golden_without_cls() -> None:
    near, deep, rows = drawn(22, 54)
    local, others = [6, 12, 7, 51, 23, 47, 36, 44, 28], [0, 13, 15, 16, 18, 31, 34, 35, 37]
    assert choose_local(near, 6, 9, 9, equally=False).tolist() == [local]
    assert VScan(positions="keep").apply(view_of(near, deep, rows, 18, Grid(1, 6, 9), QWEN)).index.tolist() == [
        sorted(local + others)
    ]


@pytest.mark.parametrize(("height", "width"), [(6, 9), (20, 30), (3, 11), (1, 1), (13, 8)])
def test_windows_without_cls_agree_with_a_walk(height: int, width: int) -> None:
    """Take tokens in descending attention, unless their window has its share already; stop when there are enough."""
    draw = torch.Generator().manual_seed(width)
    score = torch.randint(0, 20, (2, height * width), generator=draw).float()  # with ties
    down, across = max(1, height // 4), max(1, width // 4)
    for wanted in {0, 1, height * width // 5, height * width // 2}:
        found = choose_local(score, height, width, wanted, equally=False)
        for image, chosen in zip(score.tolist(), found.tolist(), strict=True):
            count, taken = [0] * (down * across), []
            for token in sorted(range(len(image)), key=lambda token: (-image[token], token)):
                window = min(token // width // 4, down - 1) * across + min(token % width // 4, across - 1)
                if count[window] < -(-wanted // (down * across)) and len(taken) < wanted:
                    taken.append(token)
                    count[window] += 1
            assert chosen == taken


@pytest.mark.parametrize("side", [2, 3, 4, 5, 12, 24])
def test_windows_with_cls_give_equally_many(side: int) -> None:
    score = torch.rand(2, side * side, generator=torch.Generator().manual_seed(side))
    for wanted in (0, 15, 16, 24, 40):
        found = choose_local(score, side, side, wanted, equally=True)
        bounds = [i * side // 4 for i in range(5)]
        expected = 0
        for top_row, bottom in pairwise(bounds):
            for left, right in pairwise(bounds):
                members = [row * side + column for row in range(top_row, bottom) for column in range(left, right)]
                best = sorted(members, key=lambda token: -float(score[0, token]))[: wanted // 16]
                assert set(best) <= set(found[0].tolist())
                expected += len(best)
        assert found.shape == (2, expected)


@pytest.mark.parametrize(("model", "grid"), [(CLIP, Grid(1, 24, 24)), (CLIP, Grid(1, 5, 5)), (QWEN, Grid(1, 6, 9))])
@pytest.mark.parametrize("share", [0.03, 0.1, 0.37, 0.9, 1.0])
def test_counts_are_exact(model: ModelShape, grid: Grid, share: float) -> None:
    keep = max(1, round(share * grid.n))
    found = VScan().apply(view_of(*drawn(1, grid.n, images=2), keep, grid, model))
    assert found.index.shape == (2, keep)
    assert (found.index.diff(dim=1) > 0).all()


def test_few_tokens_are_global() -> None:
    near, deep, rows = drawn(3, 576)
    assert VScan(merge=False).apply(view_of(near, deep, rows, 31, Grid(1, 24, 24))).index.tolist() == top(deep, 31).tolist()


def test_rows_are_means_of_disjoint_groups() -> None:
    near, deep, rows = drawn(4, 144)
    keep = VScan().apply(view_of(near, deep, rows, 40, Grid(1, 12, 12)))
    unit = torch.nn.functional.normalize(rows[0].double(), dim=-1)
    groups: dict[int, list[int]] = {token: [token] for token in keep.index[0].tolist()}
    for token in set(range(144)) - groups.keys():
        groups[max(sorted(groups), key=lambda kept: float(unit[token] @ unit[kept]))].append(token)
    expected = torch.stack([rows[0, groups[token]].mean(dim=0) for token in sorted(groups)])
    torch.testing.assert_close(rows_of(keep)[0], expected)


def test_equal_tokens_join_the_first_that_stays() -> None:
    rows = torch.ones(1, 16, 8) * 2.0 ** torch.arange(16).remainder(4)[None, :, None]
    even = torch.ones(1, 16)
    keep = VScan().apply(view_of(even, even, rows, 4, Grid(1, 4, 4)))
    assert keep.index.tolist() == [[0, 1, 2, 3]]
    assert rows_of(keep)[0, :, 0].tolist() == pytest.approx([(1 + 45) / 13, 2, 4, 8])


def test_without_merging_nothing_is_given_but_indices() -> None:
    near, deep, rows = drawn(5, 144)
    view = view_of(near, deep, rows, 40, Grid(1, 12, 12))
    plain, merged = VScan(merge=False).apply(view), VScan().apply(view)
    assert plain.features is None
    assert torch.equal(plain.index, merged.index)
    assert VScan().apply(view_of(near, deep, rows, 144, Grid(1, 12, 12))).features is None


def test_tiles_are_scanned_apart() -> None:
    near, deep, rows = drawn(6, 80)
    keep = VScan().apply(view_of(near, deep, rows, 20, Grid(5, 4, 4, across=2)))
    last = VScan().apply(view_of(near[:, 64:], deep[:, 64:], rows[:, 64:], 4, Grid(1, 4, 4)))
    assert torch.equal(keep.index[:, 16:], last.index + 64)
    torch.testing.assert_close(rows_of(keep)[:, 16:], rows_of(last))


def test_batch_does_not_matter() -> None:
    near, deep, rows = drawn(7, 144, images=3)
    together = VScan().apply(view_of(near, deep, rows, 40, Grid(1, 12, 12)))
    for i in range(3):
        part = slice(i, i + 1)
        alone = VScan().apply(view_of(near[part], deep[part], rows[part], 40, Grid(1, 12, 12)))
        assert torch.equal(alone.index[0], together.index[i])
        torch.testing.assert_close(rows_of(alone)[0], rows_of(together)[i])


def test_the_second_cut_ranks_by_the_layer_to_come() -> None:
    row = torch.tensor([[0.1, 0.3, 0.2, 0.3]])
    features, index = torch.zeros(1, 4, 8), torch.tensor([[3, 5, 9, 20]])
    view = TokenView(Cut(16, 2), 1, features, index, Grid(1, 24, 24), CLIP, ("a",), {ROW: row})
    keep = VScan().apply(view)
    assert (keep.index.tolist(), keep.features) == ([[1, 3]], None)


@pytest.mark.parametrize(
    ("shape", "n", "budget", "cuts"),
    [
        (CLIP, 576, 192, (Cut(0, 288), Cut(16, 96))),
        (CLIP, 576, 128, (Cut(0, 192), Cut(16, 64))),
        (CLIP, 576, 64, (Cut(0, 96), Cut(16, 32))),
        (CLIP, 2880, 320, (Cut(0, 480), Cut(16, 160))),
        (replace(CLIP, tiles=5), 2880, 575, (Cut(0, 860), Cut(16, 290))),  # 862 could not be shared by five tiles
        (QWEN, 600, 67, (Cut(0, 100), Cut(14, 34))),
        (CLIP, 576, 384, (Cut(0, 576), Cut(16, 192))),
    ],
)
def test_schedules(shape: ModelShape, n: int, budget: int, cuts: tuple[Cut, ...]) -> None:
    found = VScan().cuts(budget, n, shape)
    assert found == cuts
    assert average_in(found, n, shape.decoder_layers) == pytest.approx(budget, abs=0.5)


@pytest.mark.parametrize(("first", "boundary"), [(1.0, 0.5), (1.2, 0.25), (1.9, 0.5), (1.1, 0.75)])
def test_other_schedules_meet_the_budget(first: float, boundary: float) -> None:
    for budget in (30, 64, 100):
        cuts = VScan(first=first, boundary=boundary).cuts(budget, 576, CLIP)
        assert cuts[0].keep >= cuts[1].keep >= 1
        assert average_in(cuts, 576, 32) == pytest.approx(budget, abs=1)


@pytest.mark.parametrize(
    ("options", "budget", "message"),
    [
        ({}, 400, "600 of 576 tokens before the language model"),
        ({"boundary": 0.99}, 64, "behind the last of 32 layers"),
        ({"first": 2.0}, 64, "leaves none of 64 tokens to layer 16"),
    ],
)
def test_schedules_out_of_reach(options: dict[str, float], budget: int, message: str) -> None:
    with pytest.raises(Infeasible, match=message):
        VScan(**options).cuts(budget, 576, CLIP)  # type: ignore[arg-type]  # parametrised


def test_evidence_and_refusals() -> None:
    assert VScan().needs(CLIP) == {*CLS, PROJECTED, ROW}
    assert VScan(positions="keep").needs(QWEN) == {*RECEIVED, PROJECTED, ROW}
    with pytest.raises(Unsupported, match="positions 'keep'"):
        VScan().needs(QWEN)
    assert (VScan().position_rule, VScan(positions="keep").position_rule) == ("renumber", "keep")
    for options in ({"first": 0.5}, {"boundary": 0.0}, {"boundary": 1.0}, {"positions": "old"}):
        with pytest.raises(UserError):
            VScan(**options)  # type: ignore[arg-type]  # what a user may write
