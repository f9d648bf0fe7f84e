"""What each cell's pruner will do to the counts, layer by layer, and which cells cannot be measured: known before any is run."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vtpbench.harness.host.plugin_errors import plugin_errors
from vtpbench.harness.records.cell import Cell, tokens_for
from vtpbench.harness.run.plan import build_pruner
from vtpbench.pruners.errors import Impossible

if TYPE_CHECKING:
    from vtpbench.harness.pruning.schedule import Schedule
    from vtpbench.harness.records.record import ModelInfo
    from vtpbench.pruners.base import Cut, Grid, ModelShape, Pruner

LARGE_TOKENS = (100_000, 200_000)
"""Sizes of images of which any budget is a part."""


@dataclass(frozen=True)
class Forecast:
    """What is known of a cell before it is run."""

    average: float | None
    """Vision tokens per image and decoder layer, None where that varies with the image."""
    obstacle: str = ""
    """Why it cannot be measured, `infeasible: reason` or `unsupported: reason`; empty where nothing stands in the way."""
    schedule: str = ""
    """Tokens by layer, where it cuts inside the model."""
    room: int | None = None
    """Positions of the model that one image leaves for text and answer, None where that is not limited or not known."""


def foresee(cell: Cell, shape: ModelShape) -> Forecast:
    """Ask a cell's pruner what it will do to the counts of a model of that shape.

    Where the model's count varies, it is asked about the `example` of the shape: a budget out of reach there is no obstacle.

    Raises
    ------
    UserError : an option that does not fit the model, or a pruner that breaks

    """
    n = supposed_grid(cell.model, shape).n
    with plugin_errors(cell.pruner.name):
        pruner = build_pruner(cell)
        average = _average(cell, pruner, shape)
        try:
            schedule = schedule_of(cell, pruner, n, shape)
        except Impossible as e:
            known = cell.model.vision_tokens is not None or e.status == "unsupported"
            return Forecast(average, f"{e.status}: {e}" if known else "")
    cuts, tower = schedule.cuts, schedule.tower_cuts
    entering = cuts[0].keep if cuts and cuts[0].at == 0 else n
    room = None if cell.model.vision_tokens is None or shape.positions is None else shape.positions - entering
    if not tower and all(cut.at == 0 for cut in cuts):
        return Forecast(average, room=room)
    example = "" if cell.model.vision_tokens else f" (an image of {n} tokens)"
    stated = _state(cuts, n, shape.decoder_layers) + _state_tower(tower, shape) + example
    return Forecast(average, schedule=stated, room=room)


def _average(cell: Cell, pruner: Pruner, shape: ModelShape) -> float | None:
    """Average that a run must show, None where it varies with the image; of what is impossible, what was asked for."""
    sizes = LARGE_TOKENS if cell.model.vision_tokens is None else (cell.model.vision_tokens,)
    budgets = [(tokens_for(cell.budget, n), n) for n in sizes]
    try:
        averages = {pruner.expected_average(budget, n, shape) for budget, n in budgets}
    except Impossible:
        averages = {float(budget) for budget, _ in budgets}
    return averages.pop() if len(averages) == 1 else None


def schedule_of(cell: Cell, pruner: Pruner, n: int, shape: ModelShape) -> Schedule:
    """Resolve what a cell's pruner plans for `n` vision tokens; for one tile where images have different numbers of them.

    Raises `Infeasible` or `Unsupported` where the pruner, that of the cell, cannot do it.
    """
    from vtpbench.harness.pruning.schedule import resolve

    budget = None if cell.is_vanilla else tokens_for(cell.budget, n)
    return resolve(pruner, budget, n, example_grid(shape.tiles or 1, n), shape)


def supposed_grid(model: ModelInfo, shape: ModelShape) -> Grid:
    """Lay out a picture as plans suppose it: of so many tokens as all have or, where that varies, as the shape's example."""
    return example_grid(shape.tiles or 1, model.vision_tokens) if model.vision_tokens else shape.example


def example_grid(tiles: int, n: int) -> Grid:
    """Lay `n` tokens out in tiles as near to squares as they divide: that is what towers of a fixed size see."""
    from vtpbench.pruners.base import Grid

    tile = n // tiles
    height = next(side for side in range(math.isqrt(tile), 0, -1) if tile % side == 0)
    return Grid(tiles, height, tile // height)


def _state(cuts: tuple[Cut, ...], n: int, layers: int) -> str:
    """Print counts by layer: `144 in layer 0, 40 (36 + 4 merged) in layers 1-7; average 53.0`."""
    from vtpbench.pruners.base import average_in

    starts, counts = [0, *(cut.at for cut in cuts), layers], [str(n), *map(_state_count, cuts)]
    parts = []
    for start, end, count in zip(starts, starts[1:], counts, strict=False):
        if end > start:
            parts.append(f"{count} in {_span(start, end)}")
    return f"{', '.join(parts)}; average {average_in(cuts, n, layers):.1f}"


def _state_count(cut: Cut) -> str:
    """Print what a cut leaves, and how much of it is merged."""
    return f"{cut.keep} ({cut.keep - cut.merged} + {cut.merged} merged)" if cut.merged else str(cut.keep)


def _state_tower(cuts: tuple[Cut, ...], shape: ModelShape) -> str:
    """Print what a tile keeps in layers of the vision tower: `; in the vision tower 125, 107, ... 64 behind layers 0-22`."""
    counts = {cut.at % shape.vision_layers: cut.keep for cut in cuts}
    parts = []
    for start in sorted(layer for layer in counts if layer - 1 not in counts):
        run = [counts[layer] for layer in itertools.takewhile(counts.__contains__, itertools.count(start))]
        shown = ", ".join(map(str, run)) if len(run) <= 4 else f"{run[0]}, {run[1]}, ... {run[-1]}"
        parts.append(f"{shown} behind {_span(start, start + len(run))}")
    return f"; in the vision tower {', '.join(parts)}" if parts else ""


def _span(start: int, end: int) -> str:
    """Name the layers from `start` up to, and without, `end`."""
    return f"layer {start}" if end == start + 1 else f"layers {start}-{end - 1}"
