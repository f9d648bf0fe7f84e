"""How LLaVA-NeXT lays out an image: one tile of the whole, then tiles that make up an enlarged picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from vtpbench.pruners.base import Grid
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.transfer import copy_to_device

if TYPE_CHECKING:
    from torch import Tensor

NEWLINE = -1
"""Index of a newline: it is none of the image's vision tokens."""


@dataclass(frozen=True)
class AnyRes(Grid):
    """Tokens in the order of the tower, tile after tile; they enter the language model as `lines` says.

    Attributes
    ----------
    newlines : whether a newline ends each row of the enlarged picture

    """

    newlines: bool = False

    @cached_property
    def lines(self) -> Tensor:
        """All that enters, in order: `sequence`, with newlines where rows of the enlarged picture have one."""
        if not self.newlines:
            return self.sequence
        return torch.cat(
            [torch.arange(self.height * self.width), torch.nn.functional.pad(self.enlarged, (0, 1), value=NEWLINE).flatten()]
        )

    @cached_property
    def place(self) -> Tensor:
        """Where each token stands in `lines`, -1 for padding."""
        place = torch.full((self.n,), -1)
        shown = (self.lines != NEWLINE).nonzero().flatten()
        place[self.lines[shown]] = shown
        return place

    def raster(self, index: Tensor) -> Tensor:
        """Order that brings rows into the order of `lines`.

        A pruner that merges may put rows of different kinds one after the other, each kind in ascending order: each kind is
        brought into order by itself. A row without an index stays where it is.
        """
        kind = torch.nn.functional.pad((index[1:] <= index[:-1]).cumsum(0), (1, 0))[: len(index)]
        place = torch.where(index < 0, -1, _places_on(self, index.device)[index.clamp(min=0)])
        return (kind * (self.n + 1) + place).argsort()

    def packed(self, index: Tensor) -> Tensor:
        """Places in `lines` of those tokens that are not padding, and of the newlines of rows that have one; ascending."""
        tile, line = self.height * self.width, self.across * self.width - 2 * self.left + 1
        place = self.place[index]
        place = place[place >= 0]
        rows = ((place[place >= tile] - tile) // line).unique()
        return torch.cat([place, tile + (rows + 1) * line - 1]).sort().values

    def filled(self, index: Tensor, room: int) -> Tensor:
        """Do as `packed`; where no token of the image is missing, add what is left of `lines`, as far as there is room.

        Of a very tall picture unpadding leaves no column: its rows are empty, and still end with newlines. No choice of
        tokens leads to these; they come last, and a budget can be met all the same.
        """
        places = self.packed(index)
        missing = torch.ones(len(self.lines), dtype=torch.bool)
        missing[places] = False
        rest = missing.nonzero().flatten()
        if (self.lines[rest] != NEWLINE).any():
            return places
        return torch.cat([places, rest[: max(0, room - len(places))]]).sort().values


@lru_cache(maxsize=64)
def _places_on(grid: AnyRes, device: torch.device) -> Tensor:
    """Bring a geometry's table to a device, once."""
    return copy_to_device(grid.place, device)
