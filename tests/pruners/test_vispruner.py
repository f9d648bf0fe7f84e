"""FasterVLM and VisPruner: the golden example of their specification, ties, extremes, and independence of scale and batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from vtpbench.pruners.base import Cut, Evidence, Grid, ModelShape, TokenView
from vtpbench.pruners.errors import Unsupported, UserError
from vtpbench.pruners.fastervlm import FasterVLM
from vtpbench.pruners.vispruner import VisPruner

CLS, RECEIVED = Evidence("cls", 22), Evidence("received", 31)
CLIP = ModelShape("llava", 32, 32, 4096, 24, 1024, 22, True, tuple(range(24)))
QWEN = ModelShape("qwen2_5_vl", 28, 28, 3584, 32, 1280, 31, False, (7, 15, 23, 31), True)
ATTENTION = [0.05, 0.20, 0.02, 0.08, 0.15, 0.03, 0.10, 0.07, 0.06, 0.11, 0.04, 0.09]
FEATURES = [
    [1, 0],
    [0, 1],
    [1, 0.05],
    [0.5, 0.5],
    [1, 1],
    [0.05, 1],
    [-1, 0],
    [-1, 0.1],
    [0.2, -1],
    [0.3, -1],
    [1, -1],
    [0.4, 0.6],
]


def view_of(attention: Tensor, features: Tensor, keep: int, grid: Grid | None = None) -> TokenView:
    images, n = attention.shape
    index, keys = torch.arange(n).expand(images, -1), tuple(map(str, range(images)))
    return TokenView(Cut(0, keep), 0, features, index, grid or Grid(1, 1, n), CLIP, keys, {CLS: attention})


def golden(keep: int) -> TokenView:
    return view_of(torch.tensor([ATTENTION]), torch.tensor([FEATURES]), keep)


def random_view(keep: int, grid: Grid, images: int = 2) -> TokenView:
    draw = torch.Generator().manual_seed(keep)
    attention, features = torch.rand(images, grid.n, generator=draw), torch.randn(images, grid.n, 6, generator=draw)
    return view_of(attention, features, keep, grid)


def test_golden_attention_alone() -> None:
    assert FasterVLM().apply(golden(4)).index.tolist() == [[1, 4, 6, 9]]


@pytest.mark.parametrize(("keep", "ids"), [(4, [1, 2, 4, 10]), (6, [1, 4, 7, 8, 9, 11])])
def test_golden_rounds(keep: int, ids: list[int]) -> None:
    """By hand: with 4 due {0,9}, {7,3}, {8,11}, {5,6} leave; with 6 due, from a list of nine, {2,6}, {3,5}, {0,10}."""
    assert VisPruner(step=2).apply(golden(keep)).index.tolist() == [ids]


def thinned(attention: list[float], features: Tensor, keep: int, ratio: float, step: int) -> list[int]:
    """Do the same step by step, in lists."""
    order = sorted(range(len(attention)), key=lambda j: (-attention[j], j))
    important, left = order[: int(keep * ratio)], order[int(keep * ratio) :]
    due, unit = keep - len(important), normalize(features, dim=-1)
    while due and len(left) > due:
        first, second = left[::2], left[1::2]
        repeats = [max(float(unit[a] @ unit[b]) for b in second) for a in first]
        worst_first = sorted(range(len(first)), key=lambda a: -repeats[a])
        left = [first[a] for a in worst_first[min(step, len(left) - due) :]] + second
    return sorted(important + (left if due else []))


@pytest.mark.parametrize(
    ("keep", "ratio", "step"), [(10, 0.5, 8), (9, 0.3, 4), (1, 0.5, 8), (20, 0.75, 8), (35, 0.5, 8), (7, 0, 3)]
)
def test_the_rounds_are_those_of_plain_lists(keep: int, ratio: float, step: int) -> None:
    view = random_view(keep, Grid(1, 6, 6))
    chosen = VisPruner(important_ratio=ratio, step=step).apply(view).index.tolist()
    pairs = zip(view.evidence[CLS].tolist(), view.features, strict=True)
    assert chosen == [thinned(attention, features, keep, ratio, step) for attention, features in pairs]


@pytest.mark.parametrize("ratio", [1.0, 0.5])
@pytest.mark.parametrize(
    ("budget", "grid"), [(b, Grid(1, 12, 12)) for b in (1, 2, 47, 143, 144)] + [(b, Grid(5, 6, 6)) for b in (5, 40, 180)]
)
def test_counts_are_exact_and_tiles_share_equally(budget: int, grid: Grid, ratio: float) -> None:
    index = VisPruner(important_ratio=ratio).apply(random_view(budget, grid)).index
    assert index.shape == (2, budget)
    assert (index.diff(dim=1) > 0).all()
    per_tile = (index // (grid.n // grid.tiles)).flatten().bincount(minlength=grid.tiles)
    assert per_tile.tolist() == [2 * budget // grid.tiles] * grid.tiles


def test_by_attention_alone_it_is_fastervlm() -> None:
    view = random_view(40, Grid(5, 6, 6))
    assert torch.equal(VisPruner(important_ratio=1).apply(view).index, FasterVLM().apply(view).index)


def test_ties_go_to_the_lower_index() -> None:
    view = view_of(torch.ones(1, 12), torch.ones(1, 12, 3), 4)
    assert FasterVLM().apply(view).index.tolist() == [[0, 1, 2, 3]]
    # 0 and 1 stay by attention; of the others 2 and 4 leave, then 6 and 10 of what is left, 5 and 8, 7 and 3
    assert VisPruner(step=2).apply(view).index.tolist() == [[0, 1, 9, 11]]


def test_the_scale_of_features_changes_nothing() -> None:
    view = random_view(48, Grid(1, 12, 12))
    louder = replace(view, features=view.features * torch.arange(1, 145)[None, :, None])
    assert torch.equal(VisPruner().apply(louder).index, VisPruner().apply(view).index)


@pytest.mark.parametrize("pruner", [FasterVLM(), VisPruner()])
def test_batch_does_not_matter(pruner: FasterVLM | VisPruner) -> None:
    view = random_view(48, Grid(1, 12, 12), images=3)
    together = pruner.apply(view).index
    for i in range(3):
        alone = view_of(view.evidence[CLS][i : i + 1], view.features[i : i + 1], 48, view.grid)
        assert torch.equal(pruner.apply(alone).index[0], together[i])


@pytest.mark.parametrize("pruner", [FasterVLM(), VisPruner()])
def test_evidence_follows_the_tower(pruner: FasterVLM | VisPruner) -> None:
    assert pruner.needs(CLIP) == {CLS}
    assert pruner.needs(QWEN) == {RECEIVED}
    with pytest.raises(Unsupported, match="full attention"):
        pruner.needs(replace(QWEN, feature_layer=30))


@pytest.mark.parametrize("options", [{"important_ratio": 1.1}, {"important_ratio": -0.1}, {"step": 0}])
def test_unusable_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match="use"):
        VisPruner(**options)  # type: ignore[arg-type]  # the mistake under test
