"""DART: the golden examples of its specification, schedules, and independence of batch, filling and scale."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from vtpbench.pruners.base import Cut, Evidence, Grid, ModelShape, TextView, TokenView, average_in
from vtpbench.pruners.dart import DART, shares
from vtpbench.pruners.errors import Infeasible, UserError

KEYS, NORMED = Evidence("layer_keys", -1), Evidence("normed")
LLAMA = ModelShape("llava", 32, 32, 4096, 24, 1024, 22, True, tuple(range(24)))
GOLDEN_KEYS = [[0.1, 0.1], [1, 1], [0.2, 0.1], [3, -2], [0.5, 0.5], [0.1, 0.9], [2, 0], [4, 0], [0.3, 0.3], [1, -1]]
GOLDEN_STATES = [[1, 1], [1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9], [-1, 0], [0.7, 0.7], [1, 0.2], [0, 0.5], [-0.2, 1]]


def view_of(keys: Tensor, states: Tensor, text: tuple[Tensor, Tensor], keep: int, real: Tensor | None = None) -> TokenView:
    """Show tokens, `(images, n, dim)`, and the text after them: its keys and states, `(images, text, dim)`."""
    images, n = keys.shape[:2]
    real = torch.ones(text[0].shape[:2], dtype=torch.bool) if real is None else real
    return TokenView(
        cut=Cut(2, keep),
        stage=0,
        features=states,
        index=torch.arange(n).expand(images, -1),
        grid=Grid(1, 1, n),
        shape=LLAMA,
        keys=tuple(map(str, range(images))),
        evidence={KEYS: keys, NORMED: states},
        text=TextView(real, {KEYS: text[0], NORMED: text[1]}),
    )


def golden(keep: int) -> TokenView:
    """Ten positions: one before the image, six of the image, three of the text."""
    keys, states = torch.tensor([GOLDEN_KEYS]), torch.tensor([GOLDEN_STATES])
    return view_of(keys[:, 1:7], states[:, 1:7], (keys[:, 7:], states[:, 7:]), keep)


def random_view(keep: int, n: int = 40, images: int = 2, text: int = 7, real: Tensor | None = None) -> TokenView:
    draw = torch.Generator().manual_seed(n + text)
    keys, states, words, meanings = (torch.randn(images, m, 6, generator=draw) for m in (n, n, text, text))
    return view_of(keys, states, (words, meanings), keep, real)


@pytest.mark.parametrize(("keep", "positions"), [(1, [3]), (3, [1, 3, 5]), (4, [1, 3, 4, 5]), (6, [1, 2, 3, 4, 5, 6])])
def test_golden(keep: int, positions: list[int]) -> None:
    """By hand: pivots are positions 3 and 7; with three due, 3 takes 1 (as unlike as 5, the lower), and 7 takes 5."""
    chosen = DART(image_pivots=1, text_pivots=1).select(golden(keep))
    assert (chosen + 1).tolist() == [positions]


def test_golden_shares() -> None:
    assert shares(94, torch.ones(1, 8, dtype=torch.bool)).tolist() == [[12] * 6 + [11] * 2]
    real = torch.tensor([[True, True, False, True], [True, True, False, False]])
    assert shares(8, real).tolist() == [[3, 3, 0, 2], [4, 4, 0, 0]]


def plainly(view: TokenView, image: int, image_pivots: int, text_pivots: int) -> list[int]:
    """Do the same step by step, in lists, for one image."""
    assert view.text is not None
    words = view.text.real[image].nonzero().flatten().tolist()
    norms, text_norms = (part.get("layer_keys")[image].abs().sum(-1).tolist() for part in (view, view.text))
    first = sorted(range(view.n), key=lambda j: (-norms[j], j))[: min(image_pivots, view.cut.keep)]
    told = sorted(words, key=lambda j: (-text_norms[j], j))[:text_pivots]
    pivots = [view.get("normed")[image, j] for j in first] + [view.text.get("normed")[image, j] for j in told]
    states, kept = normalize(view.get("normed")[image], dim=-1), list(first)
    for number, pivot in enumerate(pivots):
        likeness = (states @ normalize(pivot, dim=-1)).tolist()
        share, more = divmod(view.cut.keep - len(first), len(pivots))
        left = sorted((j for j in range(view.n) if j not in kept), key=lambda j: (likeness[j], j))
        kept += left[: share + (number < more)]
    return sorted(kept)


@pytest.mark.parametrize("keep", [1, 4, 5, 11, 12, 25, 39, 40])
@pytest.mark.parametrize("pivots", [(4, 4), (1, 0), (3, 9)])
def test_it_is_what_plain_lists_give(keep: int, pivots: tuple[int, int]) -> None:
    real = torch.tensor([[True] * 7, [False] * 5 + [True] * 2])
    view = random_view(keep, real=real)
    chosen = DART(image_pivots=pivots[0], text_pivots=pivots[1]).select(view).tolist()
    assert chosen == [plainly(view, image, *pivots) for image in range(2)]


def test_ties_go_to_the_lower_index() -> None:
    view = view_of(torch.ones(1, 9, 2), torch.ones(1, 9, 2), (torch.ones(1, 5, 2), torch.ones(1, 5, 2)), 6)
    assert DART().select(view).tolist() == [[0, 1, 2, 3, 4, 5]]


def test_without_text_the_image_has_all_pivots() -> None:
    view = random_view(12, text=0)
    assert DART().select(view).tolist() == [plainly(view, image, 4, 4) for image in range(2)]


def test_what_padded_text_columns_hold_does_not_matter() -> None:
    real = torch.tensor([[True] * 7, [False] * 5 + [True] * 2])
    view = random_view(20, real=real)
    assert view.text is not None
    spoiled = {need: value.masked_fill(~real[..., None], float("nan")) for need, value in view.text.evidence.items()}
    assert torch.equal(DART().select(replace(view, text=TextView(real, spoiled))), DART().select(view))


def test_an_image_is_treated_as_if_alone() -> None:
    real = torch.tensor([[True] * 7, [False] * 5 + [True] * 2, [False] * 3 + [True] * 4])
    view = random_view(20, images=3, real=real)
    assert view.text is not None
    together = DART().select(view)
    for i in range(3):
        words = tuple(view.text.get(kind)[i : i + 1, real[i]] for kind in ("layer_keys", "normed"))
        alone = view_of(view.get("layer_keys")[i : i + 1], view.get("normed")[i : i + 1], words, 20)  # type: ignore[arg-type]  # two
        assert torch.equal(DART().select(alone)[0], together[i])


def test_the_scale_of_states_changes_nothing_that_of_a_key_does() -> None:
    view, factors = random_view(20), torch.arange(1.0, 41)[None, :, None]
    louder = replace(view, evidence={**view.evidence, NORMED: view.get("normed") * factors})
    assert torch.equal(DART().select(louder), DART().select(view))
    assert view.text is not None
    left_out = next(j for j in range(40) if j not in DART().select(view)[0].tolist())
    keys = view.get("layer_keys").clone()
    keys[0, left_out] *= 100
    assert left_out in DART().select(replace(view, evidence={**view.evidence, KEYS: keys}))[0].tolist(), "a pivot stays"


@pytest.mark.parametrize(
    ("layer", "n", "kept"),
    [
        (2, 576, {192: 166, 128: 98, 64: 30}),
        (1, 576, {192: 180, 128: 114, 64: 47}),
        (2, 2880, {640: 491, 320: 149}),
        (1, 2880, {640: 568, 320: 237, 160: 72}),
    ],
)
def test_fair_schedules(layer: int, n: int, kept: dict[int, int]) -> None:
    pruner = DART(layer=layer)
    assert {budget: pruner.cuts(budget, n, LLAMA) for budget in kept} == {b: (Cut(layer, k),) for b, k in kept.items()}
    assert pruner.expected_average(64, n, LLAMA) == 64


@pytest.mark.parametrize(
    ("n", "nominal", "kept", "enter", "leave"),
    [
        (576, 192, 196, 219.75, 207.9),
        (576, 128, 132, 159.75, 145.9),
        (576, 64, 68, 99.75, 83.9),
        (2880, 640, 644, 783.75, None),
        (2880, 320, 324, 483.75, None),
        (2880, 160, 164, 333.75, None),
    ],
)
def test_what_the_authors_keep(n: int, nominal: int, kept: int, enter: float, leave: float | None) -> None:
    pruner = DART(schedule="paper")
    assert pruner.cuts(nominal, n, LLAMA) == (Cut(2, kept),)
    assert pruner.expected_average(nominal, n, LLAMA) == enter
    if leave is not None:
        assert average_in((Cut(1, kept),), n, 32) == pytest.approx(leave, abs=0.05)


def test_budgets_out_of_reach_are_refused() -> None:
    with pytest.raises(Infeasible, match="DART with layer=2 keeps all 2880 tokens in 2 of 32 layers: at least 181"):
        DART().cuts(160, 2880, LLAMA)
    for schedule in ("fair", "paper"):
        with pytest.raises(Infeasible, match="use a smaller layer"):
            DART(layer=32, schedule=schedule).cuts(100, 576, LLAMA)  # type: ignore[arg-type]  # a literal each


@pytest.mark.parametrize("options", [{"layer": 0}, {"image_pivots": 0}, {"text_pivots": -1}, {"schedule": "fari"}])
def test_unusable_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match="use"):
        DART(**options)  # type: ignore[arg-type]  # the mistake under test
