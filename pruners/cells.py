"""Cells: a picture divided into exactly K rectangles, for the floors that ignore what it shows."""

from __future__ import annotations

from math import ceil, floor, sqrt
from typing import NamedTuple

from vtpbench.pruners.errors import Infeasible


class Cell(NamedTuple):
    """Rows `top` to `bottom - 1`, columns `left` to `right - 1` of a grid of `width` columns."""

    top: int
    bottom: int
    left: int
    right: int
    width: int

    @property
    def centre(self) -> int:
        """Raster id of the middle token, the upper left one of several."""
        return (self.top + self.bottom - 1) // 2 * self.width + (self.left + self.right - 1) // 2

    @property
    def members(self) -> list[int]:
        """Raster ids of all tokens."""
        return [row * self.width + column for row in range(self.top, self.bottom) for column in range(self.left, self.right)]


def cells(k: int, height: int, width: int) -> list[Cell]:
    """Divide a grid into exactly `k` cells in raster order, as square as `k` allows.

    Bounds are those of adaptive pooling: cells cover the grid and may overlap by one token. No cell row is lower and no cell
    narrower than one token, so centres ascend strictly. Raises `Infeasible` unless 1 <= k <= height * width.
    """
    if not 1 <= k <= height * width:
        raise Infeasible(f"{k} cells do not fit a grid of {height} x {width} tokens; use a budget from 1 to {height * width}")
    rows = cell_rows(k, height, width)
    found = []
    for i in range(rows):
        top, bottom = i * height // rows, ceil((i + 1) * height / rows)
        count = (i + 1) * k // rows - i * k // rows
        found += [Cell(top, bottom, j * width // count, ceil((j + 1) * width / count), width) for j in range(count)]
    return found


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
