"""Uniform grid: the floor that spreads its tokens evenly over the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from vtpbench.pruners.base import Pruner, TokenView
from vtpbench.pruners.cells import cells

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class UniformGrid(Pruner):
    """Divide each tile into as many cells as tokens may stay, and keep the token in the middle of each.

    Source: baseline of the field; the division is this project's.
    """

    source: ClassVar[str] = "baseline"
    scope: ClassVar[Literal["image", "tile"]] = "tile"

    def select(self, view: TokenView) -> Tensor:
        """Take the token in the middle of each cell."""
        division = cells(view.cut.keep, view.grid.height, view.grid.width, view.features.device)
        return division.centre.expand(len(view.features), -1)
