from itertools import pairwise

import pytest
import torch
from torch import Tensor

from vtpbench.pruners.base import Cut, Evidence, Grid, ModelShape, TokenView
from vtpbench.pruners.errors import Infeasible, Unsupported
from vtpbench.pruners.tome import ToMe
from vtpbench.pruners.tome.merging import Rows, merge

CLIP = ModelShape("llava", 32, 32, 4096, 24, 1024, 22, True, tuple(range(24)))
QWEN = ModelShape("qwen2_5_vl", 28, 28, 3584, 32, 1280, 31, False, (7, 15, 23, 31), whole_tower="no token can leave here")


def rows(values: list[float], keys: list[list[float]]) -> Rows:
    """One image; the CLS of the worked example is left out, as the harness leaves it out."""
    n = len(values)
    place = torch.arange(n)[None]
    return Rows(torch.tensor(values).float()[None, :, None], torch.tensor(keys)[None], torch.ones(1, n), place)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def many(images: int = 3, n: int = 17) -> Rows:
    place = torch.arange(n).expand(images, -1)
    return Rows(noise(images, n, 5), noise(images, n, 4, seed=1), torch.ones(images, n), place)


def test_the_worked_example_of_two_layers() -> None:
    """Golden H: the second layer sees fresh keys, and a mean that is weighted by sizes (2.25 without them)."""
    first = rows([1, 2, 3, 4, 5, 6, 7, 8], [[1, 0], [1, 0.1], [0, 1], [0.2, 1], [-1, 0], [1, 0.9], [1, 1], [-1, 0.2]])
    once = merge(first, 2)
    assert once.features[0, :, 0].tolist() == [4, 8, 1.5, 3, 5, 6.5]
    assert once.size[0].tolist() == [1, 1, 2, 1, 1, 2]
    assert once.first[0].tolist() == [3, 7, 0, 2, 4, 5]
    keys = torch.tensor([[[1.0, 0], [0, 1], [0.9, 0.1], [1, 0.3], [-1, 0], [0, 1]]])
    twice = merge(Rows(once.features, keys, once.size, once.first, once.moves), 1)
    assert twice.features[0, :, 0].tolist() == [8, 6.5, 4, 2, 5]
    assert twice.size[0].tolist() == [1, 2, 1, 3, 1]
    assert twice.group()[0].tolist() == [3, 3, 3, 2, 4, 1, 1, 0]


@pytest.mark.parametrize("count", [1, 4, 8])
def test_merging_moves_weight_but_loses_none(count: int) -> None:
    before = many()
    after = merge(merge(before, count, again=True), 2)
    assert after.n == before.n - count - 2
    assert after.size.sum(dim=1).tolist() == [before.n] * 3
    total = (after.features * after.size[..., None]).sum(dim=1)
    torch.testing.assert_close(total, before.features.sum(dim=1))
    for image in range(3):  # rows are the plain means of their groups, and stand where the first of them stood
        for row in range(after.n):
            members = (after.group()[image] == row).nonzero().flatten()
            torch.testing.assert_close(after.features[image, row], before.features[image, members].mean(dim=0))
            assert after.first[image, row] == members[0]
            assert after.size[image, row] == len(members)


def test_the_scale_of_keys_and_the_other_images_do_not_matter() -> None:
    before = many()
    stretched = Rows(before.features, before.keys * torch.arange(1, 18)[:, None], before.size, before.first)
    assert torch.equal(merge(before, 6).group(), merge(stretched, 6).group())
    alone = merge(Rows(before.features[1:2], before.keys[1:2], before.size[1:2], before.first[1:2]), 6)
    assert torch.equal(alone.features, merge(before, 6).features[1:2])


SHARES = [(192, [17] * 16 + [16] * 7, 391), (128, [20] * 11 + [19] * 12, 360), (64, [23] * 6 + [22] * 17, 330)]


@pytest.mark.parametrize(("budget", "shares", "entering"), SHARES)
def test_what_must_go_is_shared_equally(budget: int, shares: list[int], entering: int) -> None:
    cuts = ToMe().tower_cuts(budget, 576, CLIP)
    assert [cut.at for cut in cuts] == list(range(-24, -1))
    counts = [576, *(cut.keep for cut in cuts)]
    assert [a - b for a, b in pairwise(counts)] == shares
    assert round(sum(counts[:-1]) / 23 + 1) == entering  # with CLS, of the 23 layers that the features pass
    assert counts[-1] == budget


@pytest.mark.parametrize("n", [5, 16, 144, 577])
def test_no_layer_merges_more_than_every_second_token(n: int) -> None:
    shape = ModelShape("llava", 8, 8, 64, 4, 32, 2, True, tuple(range(4)))
    for budget in range(1, n):
        if n > 8 * budget:
            with pytest.raises(Infeasible, match=f"use at least {-(-n // 8)} a tile"):
                ToMe().tower_cuts(budget, n, shape)
            continue
        counts = [n, *(cut.keep for cut in ToMe().tower_cuts(budget, n, shape))]
        assert counts[-1] == budget
        assert all(a >= b >= a - a // 2 for a, b in pairwise(counts))
    assert ToMe().tower_cuts(n, n, shape) == ()


def test_a_tower_that_no_token_can_leave_is_merged_behind() -> None:
    with pytest.raises(Unsupported, match="stage: post"):
        ToMe().needs(QWEN)
    assert ToMe(stage="post").needs(QWEN) == {Evidence("keys", 31)}
    assert ToMe(stage="post").needs(CLIP) == {Evidence("keys", 22)}
    assert ToMe(stage="post").tower_cuts(192, 576, CLIP) == ()


def view(keep: int, n: int = 16) -> TokenView:
    index = torch.arange(n).expand(2, -1)
    seen = {Evidence("keys", 22): noise(2, n, 4, seed=2)}
    return TokenView(Cut(0, keep), 0, noise(2, n, 6), index, Grid(1, 4, n // 4), CLIP, ("a", "b"), seen)


@pytest.mark.parametrize("keep", [1, 3, 8, 15, 16])
def test_behind_the_tower_it_merges_until_the_budget_is_met(keep: int) -> None:
    arrived = view(keep)
    kept = ToMe(stage="post").apply(arrived)
    assert kept.index.shape == (2, keep)
    assert bool((kept.index.diff(dim=1) > 0).all())
    scrambled = ToMe(stage="post", order="reference").apply(arrived)
    order = scrambled.index.argsort(dim=1)
    assert torch.equal(scrambled.index.gather(1, order), kept.index)
    assert torch.equal(scrambled.features[0, order[0]], kept.features[0])
    for row in range(keep):
        members = arrived.features[1, ToMe(stage="post").segments(arrived)[1] == row]
        torch.testing.assert_close(kept.features[1, row], members.mean(dim=0))
