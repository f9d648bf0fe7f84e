"""What each cell's pruner will do to the counts, layer by layer, and which cells cannot be measured: known before any is run."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from vtpbench.harness.cell import Cell, tokens_for
from vtpbench.harness.plan import build_pruner
from vtpbench.pruners.errors import Infeasible, Unsupported

if TYPE_CHECKING:
    from vtpbench.pruners.base import Cut, ModelShape, Pruner

EXAMPLE_TOKENS = 1000
"""Size of the image for which a schedule is shown where a model's count varies."""


def obstacles(cells: Iterable[Cell], shapes: Mapping[str, ModelShape]) -> dict[str, str]:
    """Say which cells cannot be measured and why, by id.

    Parameters
    ----------
    cells : planned cells
    shapes : shape of each model by label; cells of other models, or of models without a fixed token count, are not judged

    """
    found: dict[str, str] = {}
    for cell in cells:
        shape, n = shapes.get(cell.model.label), cell.model.vision_tokens
        if shape is None or n is None:
            continue
        try:
            cuts_of(cell, build_pruner(cell), n, shape)
        except Infeasible as e:
            found[cell.id] = f"infeasible: {e}"
        except Unsupported as e:
            found[cell.id] = f"unsupported: {e}"
    return found


def schedules(cells: Iterable[Cell], shapes: Mapping[str, ModelShape]) -> dict[str, str]:
    """State the resolved schedule of each cell that cuts inside the model, by id; parameters as in `obstacles`."""
    found: dict[str, str] = {}
    for cell in cells:
        shape, n = shapes.get(cell.model.label), cell.model.vision_tokens or EXAMPLE_TOKENS
        if shape is None:
            continue
        try:
            cuts, tower = cuts_of(cell, build_pruner(cell), n, shape)
        except (Infeasible, Unsupported):
            continue
        if tower or any(cut.at > 0 for cut in cuts):
            example = "" if cell.model.vision_tokens else f" (an image of {n} tokens)"
            found[cell.id] = _state(cuts, n, shape.decoder_layers) + _state_tower(tower, shape) + example
    return found


def cuts_of(cell: Cell, pruner: Pruner, n: int, shape: ModelShape) -> tuple[tuple[Cut, ...], tuple[Cut, ...]]:
    """Cuts of the language model, and of the vision tower where every image has equally many tiles, for `n` vision tokens.

    Raises `Infeasible` or `Unsupported` where the pruner, that of the cell, cannot do it.
    """
    from vtpbench.harness.models.request import Request
    from vtpbench.pruners.base import Grid

    budget = tokens_for(cell.budget, n)
    pruner.needs(shape)
    cuts = pruner.cuts(budget, n, shape)
    if shape.tiles is None or cell.is_vanilla:
        return cuts, ()
    return cuts, Request(pruner, lambda n: budget).tower_cuts(n, Grid(shape.tiles, 1, n // shape.tiles), shape)


def _state(cuts: tuple[Cut, ...], n: int, layers: int) -> str:
    """Print counts by layer: `144 in layer 0, 40 in layers 1-7; average 53.0`."""
    from vtpbench.pruners.base import average_in

    starts, counts = [0, *(cut.at for cut in cuts), layers], [n, *(cut.keep for cut in cuts)]
    parts = []
    for start, end, count in zip(starts, starts[1:], counts, strict=False):
        if end > start:
            parts.append(f"{count} in {_span(start, end)}")
    return f"{', '.join(parts)}; average {average_in(cuts, n, layers):.1f}"


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
