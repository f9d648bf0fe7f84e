"""What a pruner may choose."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import pytest
import torch

from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.pruning.validation import check_shapes, clamp_and_flag
from vtpbench.pruners.base import Cut, Grid, ModelShape, Pruner, Selection, TokenView
from vtpbench.pruners.errors import UserError

SHAPE = ModelShape("test", 32, 4, 32, 24, 32, 22, True, tuple(range(24)))

VIEW = TokenView(Cut(0, 3), 0, torch.zeros(2, 6, 4), torch.arange(6).expand(2, -1), Grid(1, 2, 3), SHAPE, ("a", "b"))
ROWS = torch.zeros(2, 3, 4)


def keep(*rows: list[int], **parts: torch.Tensor) -> Selection:
    return Selection(torch.tensor(rows), **parts)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (keep([0, 1], [0, 1]), "Pruner kept 2 tokens at layer 0, 3 were due"),
        (keep([0, 1, 2]), "for 2 images"),
        (keep([0, 1, 2], [0, 1, 2], features=ROWS[:, :2]), "gave features"),
        (keep([0, 1, 2], [0, 1, 2], valid=torch.ones(2, 2, dtype=torch.bool)), "gave valid"),
    ],
)
def test_parts_that_do_not_fit_are_refused(choice: Selection, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_shapes(choice, VIEW, "Pruner")


def test_a_count_that_adapts_may_be_any() -> None:
    check_shapes(keep([0, 1], [0, 1], valid=torch.ones(2, 2, dtype=torch.bool)), VIEW, "Pruner")
    check_shapes(keep([0, 1, 2], [3, 4, 5]), VIEW, "Pruner")


@pytest.mark.parametrize(
    ("choice", "wrong"),
    [
        (keep([0, 1, 2], [3, 4, 5]), False),
        (keep([0, 1, 2], [3, 5, 4]), True),
        (keep([0, 1, 1], [3, 4, 5]), True),
        (keep([0, 1, 6], [3, 4, 5]), True),
        (keep([-1, 1, 2], [3, 4, 5]), True),
        (keep([-1, 1, 0], [3, 3, 5], features=ROWS), False),
        (keep([-2, 1, 0], [3, 3, 5], features=ROWS), True),
        (keep([1, 0, 4], [3, 4, 0], valid=torch.tensor([[True, False, True], [True, True, False]])), False),
        (keep([1, 5, 4], [3, 0, 2], valid=torch.tensor([[True, True, False], [True, False, True]])), True),
        (keep([], []), False),
    ],
)
def test_indices_are_among_the_tokens_and_ascend_where_nothing_is_merged(choice: Selection, wrong: bool) -> None:
    within, invalid = clamp_and_flag(replace(choice, index=choice.index.long()), 6)
    assert bool(invalid) == wrong
    assert bool((within.index >= (-1 if choice.merged else 0)).all() & (within.index < 6).all())
    assert wrong or torch.equal(within.index[choice.valid], choice.index[choice.valid])


@dataclass(frozen=True)
class Backwards(Pruner):
    """Keeps the right tokens in the wrong order."""

    at: int = 0

    def cuts(self, budget, n, shape):
        return (Cut(self.at, budget),)

    def select(self, view):
        return torch.arange(view.cut.keep - 1, -1, -1).expand(len(view.keys), -1)


@dataclass(frozen=True)
class Outside(Backwards):
    """Keeps tokens that do not exist."""

    def select(self, view):
        return torch.arange(view.n - 1, view.n - 1 + view.cut.keep).expand(len(view.keys), -1)


@dataclass(frozen=True)
class Below(Backwards):
    """Keeps, and gives filling beside, a token before the first."""

    def reduce(self, view):
        index = torch.arange(-1, view.cut.keep - 1).expand(len(view.keys), -1)
        return Selection(index) if self.at else Selection(index, valid=index < 3)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize("kind", [Backwards, Outside, Below])
def test_a_wrong_choice_is_no_number(kind: type[Backwards], at: int, name: str, tiny, tools) -> None:
    family, pruner = tiny(name), kind(at)
    batch = tools.prepare(family, pruner, 0.5, tools.MIXED)
    with pytest.raises(UserError, match=f"{kind.__name__} chose indices that are not among the tokens, or not ascending"):
        tools.forward(family, batch)
    with pytest.raises(UserError, match=kind.__name__):
        Pipeline(family).generate(batch, 1)


@dataclass(frozen=True)
class Scattered(Pruner):
    """Keeps every second of its tokens, and fills the places between with what does not exist."""

    def reduce(self, view):
        place = torch.arange(view.cut.keep)
        real = (place % 2 == 0).expand(len(view.keys), -1)
        return Selection(torch.where(real, place, 10**6), valid=real)


def test_filling_leaves_and_the_order_stays(tiny, tools) -> None:
    family = tiny("llava")
    batch = tools.prepare(family, Scattered(), 0.5, tools.MIXED)
    assert [image.index.tolist() for image in batch.images] == [[0, 2, 4, 6]] * 4
    (whole,) = Pipeline(family).encode([tools.picture(40, 30)])
    # processors may round one picture's sums in another order than four pictures'; the choice is exact all the same
    torch.testing.assert_close(batch.images[0].features, whole.features[0, :8:2], rtol=0, atol=1e-5)
    tools.forward(family, batch)


@dataclass(frozen=True)
class Striding(Pruner):
    """Chooses tile by tile, with indices whose memory does not lie in their order."""

    scope: ClassVar[Literal["image", "tile"]] = "tile"
    chosen: tuple[int, ...] = (0, 2)

    def select(self, view):
        return torch.tensor([self.chosen] * len(view.features)).T.contiguous().T


TILED = replace(VIEW, cut=Cut(0, 4), grid=Grid(2, 1, 3))


def test_choices_of_tiles_are_joined_however_they_lie_in_memory() -> None:
    keep, invalid = clamp_and_flag(Striding().apply(TILED), TILED.n)
    assert keep.index.tolist() == [[0, 2, 3, 5]] * 2
    assert not invalid


@pytest.mark.parametrize("chosen", [(-1, 2), (0, 3), (1, 4)])
def test_a_token_of_another_tile_is_none(chosen: tuple[int, ...]) -> None:
    _, invalid = clamp_and_flag(Striding(chosen=chosen).apply(TILED), TILED.n)
    assert invalid
