"""HoloV: the golden examples of its specification, worked by hand or by its authors' function, and what follows from its rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vtpbench.pruners.base import Cut, Evidence, Grid, ModelShape, TokenView, top
from vtpbench.pruners.errors import Unsupported, UserError
from vtpbench.pruners.holov import HoloV, runs

CLS, RECEIVED, PROJECTED = Evidence("cls", 22), Evidence("received", 31), Evidence("projected")
CLIP = ModelShape("llava", 32, 32, 8, 24, 8, 22, True, tuple(range(24)))
QWEN = ModelShape("qwen2_5_vl", 28, 28, 8, 32, 8, 31, False, (7, 15, 23, 31), True)

HAND = torch.tensor([[0.12, 0.03, 0.04, 0.06, 0.07, 0.05, 0.01, 0.02, 0.20, 0.15, 0.03, 0.02, 0.09, 0.05, 0.04, 0.02]])
AXES = torch.eye(4).repeat(4, 1)[None]


def view_of(attention: Tensor, features: Tensor, keep: int, grid: Grid | None = None, shape: ModelShape = CLIP) -> TokenView:
    images, n = attention.shape
    return TokenView(
        cut=Cut(0, keep),
        stage=0,
        features=torch.zeros(images, n, 1),
        index=torch.arange(n).expand(images, -1),
        grid=grid or Grid(1, 1, n),
        shape=shape,
        keys=tuple(map(str, range(images))),
        evidence={CLS if shape.has_cls else RECEIVED: attention, PROJECTED: features},
    )


def drawn(seed: int, n: int, dim: int, images: int = 1) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(images, n, generator=draw).softmax(-1), torch.randn(images, n, dim, generator=draw)


def kept(attention: Tensor, features: Tensor, keep: int, **options: object) -> list[int]:
    pruner = HoloV(**options)  # type: ignore[arg-type]  # parametrised
    return pruner.apply(view_of(attention, features, keep)).index[0].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("keep", "index"),
    [
        (6, [0, 3, 8, 9, 10, 12]),  # 1.5, .9, 2.4, 1.2: what is left goes to the largest shares, not remainders
        (7, [0, 3, 4, 8, 9, 10, 12]),
        (11, [0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13]),  # the third run has 4 tokens and is given 5
        (13, [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14]),
        (16, list(range(16))),
        (1, [8]),
    ],
)
def test_golden_by_hand(keep: int, index: list[int]) -> None:
    assert kept(HAND, AXES, keep, regions=4) == index


def test_golden_of_the_authors_function() -> None:
    attention, features = drawn(3, 64, 8)
    sixteen = [4, 6, 12, 20, 24, 25, 26, 28, 30, 38, 47, 49, 52, 54, 62, 63]
    twenty = [4, 6, 12, 17, 20, 21, 24, 25, 26, 28, 29, 30, 35, 43, 46, 47, 49, 54, 62, 63]
    assert kept(attention, features, 16, regions=8) == sixteen
    assert kept(attention, features, 20, regions=7) == twenty  # runs of 10 and 9; ranking by score would differ
    assert kept(*drawn(1, 16, 4), 6, regions=4) == [9, 11, 12, 13, 14, 15]


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({}, [1.601, 1.457, 1.495, 4.689, 1.003, 1.444, 2.388, 1.923]),
        ({"scaling": "image"}, [1.640, 1.497, 1.541, 4.467, 1.058, 1.494, 2.407, 1.898]),
        ({"scaling": "image", "beta": 1.0}, [1.837, 1.698, 1.771, 3.344, 1.335, 1.745, 2.501, 1.769]),
    ],
)
def test_golden_shares(options: dict[str, object], shares: list[float]) -> None:
    attention, features = drawn(3, 64, 8)
    features[:, :32] = 0.3 * features[:, :32] + 1
    ids, real = runs(64, 8, torch.device("cpu"))
    pruner = HoloV(**options)  # type: ignore[arg-type]  # parametrised
    weight = pruner.weights(attention[:, ids], features[:, ids], real)
    assert (16 * weight[0]).tolist() == pytest.approx(shares, abs=1e-3)


@pytest.mark.parametrize(
    ("n", "keep", "count"),
    [(576, 192, 5), (576, 128, 8), (576, 64, 16), (2880, 640, 8), (2880, 320, 16), (2880, 160, 32), (144, 1, 72), (3, 3, 1)],
)
def test_number_of_runs(n: int, keep: int, count: int) -> None:
    assert HoloV().count(n, keep) == count


def test_runs_of_the_paper_sizes() -> None:
    sizes = runs(576, 5, torch.device("cpu"))[1].sum(dim=1).tolist()
    assert sizes == [116, 115, 115, 115, 115]


@pytest.mark.parametrize("keep", [1, 2, 5, 16, 40, 63, 64])
def test_counts_are_exact_and_every_run_keeps_its_best(keep: int) -> None:
    attention, features = drawn(keep, 64, 8, images=3)
    attention = (8 * attention).softmax(-1)  # peaked, so that quotas exceed runs
    index = HoloV(regions=7).apply(view_of(attention, features, keep)).index
    assert index.shape == (3, keep)
    assert (index.diff(dim=1) > 0).all()
    ids, real = runs(64, 7, torch.device("cpu"))
    for image, chosen in enumerate(index.tolist()):
        for run, inside in zip(ids.tolist(), real.tolist(), strict=True):
            members = [token for token, is_member in zip(run, inside, strict=True) if is_member]
            stays = [token for token in members if token in chosen]
            best = sorted(members, key=lambda token: (-float(attention[image, token]), token))
            assert sorted(best[: len(stays)]) == stays


def test_one_run_is_the_best_attention() -> None:
    attention, features = drawn(5, 64, 8)
    assert kept(attention, features, 20, regions=1) == top(attention, 20)[0].tolist()


def test_features_decide_nothing_unless_scaled_over_the_image() -> None:
    attention, features = drawn(3, 64, 8)
    features[:, :32] = 0.1 * features[:, :32] + 1
    shuffled = features[:, torch.randperm(64, generator=torch.Generator().manual_seed(0))]
    for keep in (8, 16, 32):
        assert kept(attention, features, keep, regions=8) == kept(attention, shuffled, keep, regions=8)
        assert kept(100 * attention, features, keep, regions=8) == kept(attention, features, keep, regions=8)
    image: Callable[[Tensor], list[int]] = lambda rows: kept(attention, rows, 16, regions=8, scaling="image", beta=1.0)  # noqa: E731
    assert image(features) != image(shuffled)


def test_ties_go_to_the_lower_index() -> None:
    assert kept(torch.full((1, 16), 1 / 16), AXES, 5, regions=4) == [0, 1, 4, 8, 12]


def test_runs_go_along_the_sequence_of_joined_tiles() -> None:
    """Base tile and 2 x 2 tiles of 2 x 2 tokens: 16 and 17, of one tile, are in different runs of five."""
    grid = Grid(5, 2, 2, across=2)
    assert grid.sequence[10:].tolist() == [10, 11, 12, 13, 16, 17, 14, 15, 18, 19]
    attention = torch.full((1, 20), 1e-3)
    attention[0, [16, 17]] = torch.tensor([0.4, 0.3])
    index = HoloV(regions=4).apply(view_of(attention, torch.ones(1, 20, 4), 2, grid)).index
    assert index.tolist() == [[10, 16]]


def test_padding_stays_only_where_nothing_else_is_left() -> None:
    grid = Grid(5, 2, 2, across=2, top=1)
    padding = sorted(set(range(20)) - set(grid.sequence.tolist()))
    attention, features = drawn(7, 20, 4)
    attention[0, padding] = 1.0
    for keep in (1, 6, 12):
        index = HoloV().apply(view_of(attention, features, keep, grid)).index[0].tolist()
        assert len(index) == keep
        assert not set(index) & set(padding)
    assert HoloV().apply(view_of(attention, features, 14, grid)).index[0].tolist() == sorted(grid.sequence.tolist() + padding[:2])


def test_batch_does_not_matter() -> None:
    attention, features = drawn(9, 144, 8, images=3)
    together = HoloV().apply(view_of(attention, features, 32)).index
    for i in range(3):
        assert torch.equal(HoloV().apply(view_of(attention[i : i + 1], features[i : i + 1], 32)).index[0], together[i])


def test_without_cls_attention_received_counts() -> None:
    assert HoloV().needs(CLIP) == {CLS, PROJECTED}
    assert HoloV().needs(QWEN) == {RECEIVED, PROJECTED}
    index = HoloV(regions=4).apply(view_of(HAND, AXES, 6, shape=QWEN)).index
    assert index.tolist() == [[0, 3, 8, 9, 10, 12]]


def test_refusals() -> None:
    with pytest.raises(Unsupported, match="full attention in the feature layer 31"):
        HoloV().needs(ModelShape("windows", 28, 28, 8, 32, 8, 31, False, (7, 15)))
    with pytest.raises(UserError, match="regions=0"):
        HoloV(regions=0)
    with pytest.raises(UserError, match="scaling='tile'"):
        HoloV(scaling="tile")  # type: ignore[arg-type]  # what a user may write
