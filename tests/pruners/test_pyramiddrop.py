from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vtpbench.pruners.base import Cut, Evidence, Grid, ModelShape, TokenView, average_in
from vtpbench.pruners.errors import Infeasible, Unsupported, UserError
from vtpbench.pruners.pyramiddrop import PyramidDrop, geometric, solve_ratio

SHAPE = ModelShape("test", 32, 2, 32, 4, 32, 3, has_cls=True, full_attention=(0, 1, 2, 3))


def keeps(cuts: tuple[Cut, ...]) -> tuple[int, ...]:
    return tuple(cut.keep for cut in cuts)


def test_golden_h_counts_are_floors_of_the_original_count() -> None:
    assert keeps(geometric((8, 16, 24), 0.5, 576)) == (288, 144, 72)
    assert keeps(geometric((8, 16, 24), 0.5, 1369)) == (684, 342, 171)
    assert keeps(geometric((8, 16, 24), 0.01, 50)) == (1, 1, 1)
    assert keeps(geometric((8, 16, 24), 1.0, 576)) == (576, 576, 576)


@pytest.mark.parametrize(
    ("n", "budget", "expected", "average"),
    [
        (576, 192, (322, 180, 100), 191.4),
        (576, 128, (241, 101, 42), 127.4),
        (576, 64, (110, 21, 4), 63.9),
        (2880, 960, (1611, 901, 504), 959.3),
        (2880, 640, (1208, 507, 212), 639.3),
        (2880, 320, (551, 105, 20), 319.6),
    ],
)
def test_solved_schedules_of_the_worked_table(n: int, budget: int, expected: tuple[int, ...], average: float) -> None:
    cuts = PyramidDrop().cuts(budget, n, SHAPE)
    assert [cut.at for cut in cuts] == [2, 8, 16]
    assert keeps(cuts) == expected
    assert average_in(cuts, n, 32) == pytest.approx(average, abs=0.05)


@pytest.mark.parametrize(
    ("at", "share", "layers", "ratio"),
    [
        ((2, 8, 16), 192 / 576, 32, 0.5596),
        ((2, 8, 16), 128 / 576, 32, 0.4197),
        ((2, 8, 16), 64 / 576, 32, 0.1916),
        ((8, 16, 24), 192 / 576, 32, 0.2531),
        ((1, 8, 16), 160 / 2880, 32, 0.0980),
        ((2, 7, 14), 1 / 3, 28, 0.5553),
        ((2, 7, 14), 2 / 9, 28, 0.4117),
        ((2, 7, 14), 1 / 9, 28, 0.1688),
        ((8, 16, 24), 270 / 576, 32, 0.5),
    ],
)
def test_ratios_of_the_worked_table(at: tuple[int, ...], share: float, layers: int, ratio: float) -> None:
    assert solve_ratio(at, share, layers) == pytest.approx(ratio, abs=5e-5)


def test_alternative_layers_of_the_worked_table() -> None:
    assert keeps(geometric((8, 16, 24), solve_ratio((8, 16, 24), 192 / 576, 32), 576)) == (145, 36, 9)
    low = geometric((1, 8, 16), solve_ratio((1, 8, 16), 160 / 2880, 32), 2880)
    assert keeps(low) == (282, 27, 2)
    assert average_in(low, 2880, 32) == pytest.approx(159.4, abs=0.05)


def test_the_authors_example() -> None:
    cuts = geometric((2, 8, 16), 0.19, 576)
    assert keeps(cuts) == (109, 20, 3)
    assert average_in(cuts, 576, 32) == pytest.approx(62.9, abs=0.05)


@pytest.mark.parametrize(
    ("n", "layers", "budget", "at"),
    [(576, 32, 270, (8, 16, 24)), (2880, 32, 1350, (8, 16, 24)), (576, 28, 270, (7, 14, 21))],
)
def test_the_paper_schedule_gives_its_own_budget(n: int, layers: int, budget: int, at: tuple[int, ...]) -> None:
    cuts = PyramidDrop(schedule="paper").cuts(budget, n, replace(SHAPE, decoder_layers=layers))
    assert tuple(cut.at for cut in cuts) == at
    assert average_in(cuts, n, layers) == budget


def test_the_paper_schedule_refuses_other_budgets() -> None:
    with pytest.raises(Infeasible, match="gives 270 of 576 tokens on average, not 192"):
        PyramidDrop(schedule="paper").cuts(192, 576, SHAPE)


def test_a_budget_below_the_floor_is_infeasible() -> None:
    with pytest.raises(Infeasible, match="layers 2, 8, 16 keeps all 2880 tokens in 2 of 32 layers: at least 181 on average"):
        PyramidDrop().cuts(160, 2880, SHAPE)


def test_selection_is_by_the_row_of_the_layer_to_come() -> None:
    ours, fastv = Evidence("row", 0), Evidence("row", -1)
    assert PyramidDrop().needs(SHAPE) == {ours}
    evidence = {ours: torch.tensor([[0.0487, 0.1092, 0.2850, 0.0720, 0.2735]]), fastv: torch.tensor([[9.0, 0, 0, 0, 0]])}
    view = TokenView(Cut(2, 2), 0, torch.zeros(1, 5, 4), torch.arange(5)[None], Grid(1, 1, 5), SHAPE, ("x",), evidence)
    assert PyramidDrop().reduce(view).index.tolist() == [[2, 4]]


def test_positions_are_renumbered_where_they_can_be() -> None:
    several = replace(SHAPE, multi_axis_positions=True)
    assert PyramidDrop().position_rule == "renumber"
    assert PyramidDrop(positions="keep").position_rule == "keep"
    with pytest.raises(Unsupported, match="use positions 'keep'"):
        PyramidDrop().needs(several)
    assert PyramidDrop(positions="keep").needs(several)


@pytest.mark.parametrize("options", [{"schedule": "fari"}, {"positions": "renumber"}])
def test_unknown_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match="use"):
        PyramidDrop(**options)  # type: ignore[arg-type]  # the mistake under test
