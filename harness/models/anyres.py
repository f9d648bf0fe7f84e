"""How LLaVA-NeXT and LLaVA-OneVision lay out an image: one tile of the whole, then tiles that make up an enlarged picture."""

from __future__ import annotations

import math
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

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns of the enlarged picture that enter."""
        down = (self.tiles - 1) // self.across
        return down * self.height - 2 * self.top, self.across * self.width - 2 * self.left

    @property
    def entering(self) -> int:
        """How many enter, newlines counted."""
        rows, columns = self.sides
        return self.height * self.width + rows * (columns + self.newlines)

    @property
    def padded(self) -> int:
        """How many tokens show only padding."""
        rows, columns = self.sides
        return self.n - self.height * self.width - rows * columns

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
        tile, line = self.height * self.width, self.sides[1] + 1
        place = self.place[index]
        place = place[place >= 0]
        rows = ((place[place >= tile] - tile) // line).unique()
        return torch.cat([place, tile + (rows + 1) * line - 1]).sort().values

    def filled(self, index: Tensor, room: int) -> Tensor:
        """Do as `packed`; what is missing of `room` is made up by newlines of rows without a token, the first ones.

        One may be missing where the next token would bring a newline along. And of a very tall picture unpadding leaves no
        column: no choice of tokens leads to the newlines of its rows, and a budget can be met all the same.
        """
        places, newlines = self.packed(index), (self.lines == NEWLINE).nonzero().flatten()
        free = newlines[~torch.isin(newlines, places)]
        return torch.cat([places, free[: max(0, room - len(places))]]).sort().values


@dataclass(frozen=True)
class PackedAnyRes(AnyRes):
    """Tokens that were laid out behind the tower: the base tile, then an enlarged picture without padding, resized.

    `tiles`, `height` and `width` are those that the tower sees, `top` and `left` what was cut off before the picture was resized.

    Attributes
    ----------
    rows, columns : tokens of the enlarged picture

    """

    newlines: bool = True
    rows: int = 0
    columns: int = 0

    @classmethod
    def of(cls, grid: AnyRes, most: int) -> PackedAnyRes:
        """Lay out as LLaVA-OneVision does: what has more than 1.21 times the tokens of `most` tiles is resized to about these."""
        rows, columns = grid.sides
        ratio = math.sqrt(rows * columns / (most * grid.height**2))
        if ratio > 1.1:
            rows, columns = int(rows // ratio), int(columns // ratio)
        return cls(grid.tiles, grid.height, grid.width, grid.across, grid.top, grid.left, rows=rows, columns=columns)

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns of the enlarged picture."""
        return self.rows, self.columns

    @property
    def tiled(self) -> bool:
        """Tiles are joined to a picture before anyone chooses."""
        return False

    @property
    def pictures(self) -> tuple[tuple[int, int], ...]:
        """The base tile and, where anything of it is left, the enlarged picture."""
        base = (self.height, self.width)
        return (base, self.sides) if self.rows * self.columns else (base,)

    @cached_property
    def enlarged(self) -> Tensor:
        """Tokens of the enlarged picture, `(rows, columns)` on the host."""
        return torch.arange(self.height * self.width, self.n).reshape(self.sides)

    @cached_property
    def shown(self) -> Tensor:
        """The tower's tokens that the enlarged picture is made of, `(rows, columns)` before it is resized; on the host."""
        return Grid(self.tiles, self.height, self.width, self.across, self.top, self.left).enlarged

    def lay_out(self, x: Tensor) -> Tensor:
        """Lay out values of the tower's tokens: `(images, tiles * height * width, ...)` to `(images, n, ...)`."""
        base, shown = x[:, : self.height * self.width], copy_to_device(self.shown, x.device)
        picture = x[:, shown.flatten()]
        if shown.shape != self.sides:
            channels = picture.reshape(len(x), *shown.shape, -1).permute(0, 3, 1, 2)
            resized = torch.nn.functional.interpolate(channels, self.sides, mode="bilinear")
            picture = resized.permute(0, 2, 3, 1).reshape(len(x), -1, *x.shape[2:])
        return torch.cat([base, picture], dim=1)


@lru_cache(maxsize=64)
def _places_on(grid: AnyRes, device: torch.device) -> Tensor:
    """Bring a geometry's table to a device, once."""
    return copy_to_device(grid.place, device)
