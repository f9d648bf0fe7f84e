"""How InternVL lays out an image: tiles that divide it evenly and a thumbnail, tokens that are made of 2 x 2 patches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vtpbench.harness.models.anyres import AnyRes
from vtpbench.harness.models.dimensions import sides
from vtpbench.pruners.base import Grid
from vtpbench.pruners.errors import Unsupported
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TilesInTurn(AnyRes):
    """Tiles that enter one after the other, each in raster order, the base tile last."""

    @cached_property
    def sequence(self) -> Tensor:
        """Tokens in the order in which they enter; on the host."""
        return torch.arange(self.n).roll(-self.height * self.width)


def tile_side(config: Any) -> int:
    """Tokens along each side of a tile; raises `Unsupported` where it is no square of an even number of square patches."""
    (height, width), (down, across) = map(sides, (config.vision_config.image_size, config.vision_config.patch_size))
    if height != width or down != across or height % (2 * down):
        raise Unsupported(f"only InternVL with square tiles of 2 x 2 square patches is supported, not {height} x {width} pixels")
    return height // (2 * down)


def joined(patches: Tensor, grid: Grid) -> Tensor:
    """Bring the four patches of each token together: `(tiles, 4 * n, ...)` to `(tiles, n, 4, ...)`, tokens in raster order."""
    squares = patches.reshape(len(patches), grid.height, 2, grid.width, 2, *patches.shape[2:]).transpose(2, 3)
    return squares.flatten(3, 4).flatten(1, 2)


def arrangement(tiles: Tensor) -> tuple[int, int]:
    """Find rows and columns in which tiles, `(tiles, channels, height, width)`, make up the thumbnail behind them.

    The stock processor keeps no sizes. Of all arrangements of so many tiles, the right one, shrunk, is nearest to the thumbnail.
    """
    *_, thumbnail = tiles.float()
    count = max(1, len(tiles) - 1)

    def far(down: int) -> float:
        picture = tiles[:count].float().unflatten(0, (down, -1)).permute(2, 0, 3, 1, 4).flatten(1, 2).flatten(2, 3)
        shrunk = torch.nn.functional.interpolate(picture[None], thumbnail.shape[1:], mode="area")
        return float((shrunk[0] - thumbnail).abs().mean())

    down = min((rows for rows in range(1, count + 1) if count % rows == 0), key=far)
    return down, count // down
