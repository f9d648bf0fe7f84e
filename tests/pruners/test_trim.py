"""TRIM: the golden example of its specification, and its properties."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vtpbench.pruners.base import Cut, Evidence, Grid, ModelShape, TextTowerSource, TokenView
from vtpbench.pruners.errors import Unsupported, UserError
from vtpbench.pruners.trim import TRIM

ABSENT = ModelShape("test", 32, 4, 32, 24, 32, 22, True, tuple(range(24)), text_tower=TextTowerSource("some/clip"))
LIKENESS = torch.tensor([[2, 1, -3, 1.5, -1, 1, 2, 1.2]])
FEATURES = torch.arange(1.0, 9)[None, :, None]


def view_of(likeness: Tensor, features: Tensor, keep: int, tiles: int = 1) -> TokenView:
    """Tokens whose products with the question are `likeness`, `(images, n)`."""
    images, n = likeness.shape
    return TokenView(
        cut=Cut(0, keep),
        stage=0,
        features=features,
        index=torch.arange(n).expand(images, -1),
        grid=Grid(tiles, 1, n // tiles),
        shape=ABSENT,
        evidence={Evidence("joint"): torch.stack([likeness, torch.ones_like(likeness)], dim=-1)},
        asked=torch.tensor([[1.0, 0.0]]).expand(images, -1),
    )


def test_golden() -> None:
    view = view_of(LIKENESS, FEATURES, 7)
    p = TRIM().score(view).softmax(dim=1)[0]
    assert p.tolist() == pytest.approx([0.00556, 0.01512, 0.82539, 0.00917, 0.11170, 0.01512, 0.00556, 0.01238], abs=1e-5)
    found = TRIM(count="outliers").apply(view)
    assert found.valid is not None
    assert found.features is not None
    assert found.index[0, found.valid[0]].tolist() == [2, 4, 1]  # the mean stands at the best of what it is the mean of
    assert found.features[0, found.valid[0], 0].tolist() == pytest.approx([3, 5, 4.6667], abs=1e-4)
    exact = TRIM().apply(view_of(LIKENESS, FEATURES, 3))
    assert exact.features is not None
    assert exact.valid is None
    assert exact.index.tolist() == [[2, 4, 1]]
    assert exact.features[0, :, 0].tolist() == pytest.approx([3, 5, 4.6667], abs=1e-4)


def test_the_budget_bounds_outliers() -> None:
    found = TRIM(count="outliers").apply(view_of(LIKENESS, FEATURES, 2))
    assert found.valid is not None
    assert found.index[0, found.valid[0]].tolist() == [2, 4]


def test_sign_and_similarity() -> None:
    assert TRIM(relevance_sign=1).apply(view_of(LIKENESS, FEATURES, 3)).index[0, :2].tolist() == [0, 6]
    long = torch.tensor([[[0.0, 1], [1, 0], [3, 4], [2, -2]]])  # products 0, 1, 3, 2; cosines 0, 1, .6, .71
    view = view_of(torch.zeros(1, 4), torch.zeros(1, 4, 1), 2)
    view.evidence[Evidence("joint")][:] = long  # type: ignore[index]
    assert TRIM(relevance_sign=1).apply(view).index[0, 0].item() == 2
    assert TRIM(relevance_sign=1, similarity="cosine").apply(view).index[0, 0].item() == 1


def test_a_constant_changes_nothing() -> None:
    views = view_of(LIKENESS, FEATURES, 7), view_of(LIKENESS + 5, FEATURES, 7)
    one, other = (TRIM(count="outliers").apply(view) for view in views)
    assert torch.equal(one.index, other.index)
    assert one.valid is not None
    assert other.valid is not None
    assert torch.equal(one.valid, other.valid)


def test_the_mean_of_one_is_that_token_and_all_are_left_as_they_are() -> None:
    found = TRIM().apply(view_of(LIKENESS, FEATURES, 7))
    assert found.k == 7
    keep = TRIM().apply(view_of(LIKENESS, FEATURES, 8))
    assert keep.index.tolist() == [list(range(8))]
    last_two = TRIM().apply(view_of(LIKENESS[:, :2], FEATURES[:, :2], 1))
    assert last_two.features is not None
    assert last_two.features.flatten().tolist() == [1.5]


def test_every_tile_keeps_its_own() -> None:
    features = torch.randn(1, 40, 3, generator=torch.Generator().manual_seed(0))
    likeness = torch.randn(1, 40, generator=torch.Generator().manual_seed(1))
    found = TRIM().apply(view_of(likeness, features, 15, tiles=5))
    assert found.index.shape == (1, 15)
    counts = torch.bincount(found.index[0] // 8, minlength=5)
    assert counts.tolist() == [3] * 5
    assert found.features is not None
    base = TRIM().apply(view_of(likeness[:, :8], features[:, :8], 3))
    assert base.features is not None
    assert torch.equal(found.features[:, :3], base.features)


def test_what_it_needs() -> None:
    with pytest.raises(Unsupported, match=r"some/clip, which is not here; run `hf download some/clip`"):
        TRIM().needs(ABSENT)
    assert TRIM().fingerprint(ABSENT) == ""
    with pytest.raises(UserError, match="use -1 or 1"):
        TRIM(relevance_sign=2)
