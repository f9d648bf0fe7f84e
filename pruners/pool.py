"""Average pooling: the floor for methods that merge tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from vtpbench.pruners.base import Pruner, Selection, TokenView, take
from vtpbench.pruners.cells import cells, largest_cell


@dataclass(frozen=True)
class Pool(Pruner):
    """Divide each tile into as many cells as tokens may stay, and replace each cell by the mean of its features.

    The mean stands at the place of the cell's centre. It is taken of what arrives: before the projector in LLaVA, which is
    not the same as after it.

    Source: baseline of the field; the division is this project's, so that the count is exact for every budget.
    """

    source: ClassVar[str] = "baseline"
    scope: ClassVar[Literal["image", "tile"]] = "tile"

    def reduce(self, view: TokenView) -> Selection:
        """Average each cell; a sum of its own per cell, so the result does not depend on the batch."""
        images, geometry = len(view.features), (view.cut.keep, view.grid.height, view.grid.width)
        division = cells(*geometry, view.features.device)
        ids, real = division.members(largest_cell(*geometry))
        weights = real / division.count[:, None]
        rows = take(view.features, ids.flatten().expand(images, -1)).reshape(images, *ids.shape, -1)
        return Selection(division.centre.expand(images, -1), (rows * weights[..., None]).sum(dim=2))
