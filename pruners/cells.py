"""Cells: a picture divided into exactly K rectangles, for the floors that ignore what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor, sqrt
from typing import TYPE_CHECKING

from vtpbench.pruners.errors import Infeasible
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Cells:
    """Rectangles in raster order, on a grid of `width` columns.

    Each has rows `top` to `bottom - 1` and columns `left` to `right - 1`; all of shape (k,).
    """

    top: Tensor
    bottom: Tensor
    left: Tensor
    right: Tensor
    width: int

    @property
    def centre(self) -> Tensor:
        """Raster id of each cell's middle token, the upper left one of several, (k,)."""
        return (self.top + self.bottom - 1) // 2 * self.width + (self.left + self.right - 1) // 2

    @property
    def count(self) -> Tensor:
        """Tokens of each cell, (k,)."""
        return (self.bottom - self.top) * (self.right - self.left)

    def members(self, most: int) -> tuple[Tensor, Tensor]:
        """Raster ids of each cell's tokens and which of them are real, (k, most); filling repeats the first."""
        place, columns = torch.arange(most, device=self.top.device), (self.right - self.left)[:, None]
        real = place < self.count[:, None]
        ids = (self.top[:, None] + place // columns) * self.width + self.left[:, None] + place % columns
        return torch.where(real, ids, ids[:, :1]), real


@lru_cache(maxsize=64)
def cells(k: int, height: int, width: int, device: torch.device) -> Cells:
    """Divide a grid into exactly `k` cells in raster order, as square as `k` allows; computed where it is needed.

    Bounds are those of adaptive pooling: cells cover the grid and may overlap by one token. No cell row is lower and no cell
    narrower than one token, so centres ascend strictly. Raises `Infeasible` unless 1 <= k <= height * width.
    """
    if not 1 <= k <= height * width:
        raise Infeasible(f"{k} cells do not fit a grid of {height} x {width} tokens; use a budget from 1 to {height * width}")
    rows, cell = cell_rows(k, height, width), torch.arange(k, device=device)
    row = ((cell + 1) * rows - 1) // k
    first, count = row * k // rows, (row + 1) * k // rows - row * k // rows
    column = cell - first
    bottom, right = -(-(row + 1) * height // rows), -(-(column + 1) * width // count)  # rounded up
    return Cells(row * height // rows, bottom, column * width // count, right, width)


@lru_cache(maxsize=64)
def largest_cell(k: int, height: int, width: int) -> int:
    """Count the tokens of the largest cell, on the host."""
    return int(cells(k, height, width, torch.device("cpu")).count.max())


def cell_rows(k: int, height: int, width: int) -> int:
    """Choose the number of cell rows: a divisor of `k` within 1.5 of square cells, or else rows of unequal length."""
    fitting = [h for h in range(1, min(k, height) + 1) if k % h == 0 and k // h <= width]

    def stretch(h: int) -> float:
        """Square of the factor between `h` and the number of rows that makes cells square; equal ratios compare equal."""
        sides = (h * h * width, k * height)
        return max(sides) / min(sides)

    best = min(fitting, key=stretch, default=None)  # the smaller on ties
    if best is not None and stretch(best) <= 2.25:
        return best
    return max(ceil(k / width), min(floor(sqrt(k * height / width) + 0.5), height, k))
