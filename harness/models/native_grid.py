"""How tiles of an image lie natively: from its size, or, where that is not known, from its numbers of tiles and tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from vtpbench.harness.models.anyres import AnyRes
from vtpbench.harness.models.llava import tile_side
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def native_grid(config: Any, size: tuple[int, int]) -> AnyRes:
    """Lay out an image, `size` is its height and width in pixels, as transformers does with this configuration."""
    from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

    side = tile_side(config)
    down, across = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, config.vision_config.image_size)
    whole = torch.empty(1, down * side, across * side)
    height, width = unpad_image(whole, size).shape[1:]
    top, left = (whole.shape[1] - height) // 2, (whole.shape[2] - width) // 2
    return AnyRes(1 + down * across, side, side, across, top, left, newlines=True)


def solve_grids(config: Any, counts: Sequence[int], tiles: Tensor, lay: Callable[[AnyRes], AnyRes]) -> list[AnyRes]:
    """Find how images lie whose sizes are not known: `generate` of transformers 5.23 encodes them first, and keeps no sizes.

    Parameters
    ----------
    config : of the model
    counts : tokens of each image in the prompts, newlines counted
    tiles : `(tiles, channels, height, width)` of all images, one after the other, as they enter the tower
    lay : how tokens that lie so in the tower enter the language model

    Raises
    ------
    UserError : no layout, or several, fit the numbers of tokens and tiles, and what is blank where an image was padded

    """
    possible = [[grid for grid in map(lay, _layouts(config)) if grid.entering == count] for count in counts]
    found = [grids for grids in product(*possible) if _tiles(grids) == len(tiles)]
    if len(found) > 1:
        parts = (tiles.split([grid.tiles for grid in grids]) for grids in found)
        found = [grids for grids, own in zip(found, parts, strict=True) if all(map(_padded_as, grids, own))]
    if len(found) != 1:
        tokens = ", ".join(map(str, counts))
        raise UserError(
            f"{len(found)} layouts fit images of {tokens} tokens and {len(tiles)} tiles, whose image_sizes `generate` does not "
            "hand on; ask about one image at a time, or ask `vtpbench.wrap(model, processor)`"
        )
    return list(found[0])


def _tiles(grids: Sequence[AnyRes]) -> int:
    return sum(grid.tiles for grid in grids)


def _layouts(config: Any) -> Iterator[AnyRes]:
    """List the layouts that images can have; at most one side is padded."""
    side, pixels = tile_side(config), config.vision_config.image_size
    for down, across in sorted({(height // pixels, width // pixels) for height, width in config.image_grid_pinpoints}):
        height, width = down * side, across * side
        cuts = [(top, 0) for top in range(height // 2 + 1)] + [(0, left) for left in range(1, width // 2 + 1)]
        for top, left in cuts:
            yield AnyRes(1 + down * across, side, side, across, top, left, newlines=True)


def _padded_as(grid: AnyRes, tiles: Tensor) -> bool:
    """Whether an image's tiles are blank where a layout has padding; the innermost row of tokens may show some of the image."""
    picture = tiles[1:].unflatten(0, (-1, grid.across)).permute(2, 0, 3, 1, 4).flatten(1, 2).flatten(2, 3)
    patch, (height, width) = tiles.shape[-1] // grid.width, picture.shape[1:]
    top, left = max(0, grid.top - 1) * patch, max(0, grid.left - 1) * patch
    edges = picture[:, :top], picture[:, height - top :], picture[:, :, :left], picture[:, :, width - left :]
    return all(bool((edge == edge[:, :1, :1]).all()) for edge in edges if edge.numel())
