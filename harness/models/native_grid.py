"""How LLaVA-NeXT lays out an image natively: from its size, or, where that is not known, from its numbers of tiles and tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import torch

from vtpbench.harness.models.anyres import AnyRes
from vtpbench.harness.models.llava import tile_side
from vtpbench.pruners.errors import UserError

SCALES = (0.25, 0.5, 1, 2, 4)
"""Sizes of an image, in sizes of the picture that its tiles make up, at which it is tried whether a layout comes about."""


def native_grid(config: Any, size: tuple[int, int]) -> AnyRes:
    """Lay out an image, `size` is its height and width in pixels, as transformers does with this configuration."""
    from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

    side = tile_side(config)
    down, across = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, config.vision_config.image_size)
    whole = torch.empty(1, down * side, across * side)
    height, width = unpad_image(whole, size).shape[1:]
    top, left = (whole.shape[1] - height) // 2, (whole.shape[2] - width) // 2
    return AnyRes(1 + down * across, side, side, across, top, left, newlines=True)


def solve_grids(config: Any, counts: Sequence[int], tiles: int) -> list[AnyRes]:
    """Find how images lie of which only their tokens in the prompts and the tiles of all together are known.

    `generate` of transformers 5.23 encodes images before the model is called, and does not hand on how large they were.
    Layouts that no image of the sizes tried has are left out. Raises `UserError` unless exactly one solution is left.
    """
    choices = [list(_layouts(config, count)) for count in counts]
    solutions = [found for found in product(*choices) if sum(grid.tiles for grid in found) == tiles]
    if len(solutions) > 1:
        real = [[grid for grid in grids if _comes_about(config, grid)] for grids in choices]
        solutions = [found for found in product(*real) if sum(grid.tiles for grid in found) == tiles]
    if len(solutions) != 1:
        raise UserError(
            f"{len(solutions)} layouts fit images of {', '.join(map(str, counts))} tokens and {tiles} tiles, and `generate` does "
            "not hand on their image_sizes; ask about one image at a time, or ask `vtpbench.wrap(model, processor)`"
        )
    return list(solutions[0])


def _layouts(config: Any, tokens: int) -> Iterator[AnyRes]:
    """List the layouts that give an image so many tokens, newlines counted; at most one side is padded."""
    side, pixels = tile_side(config), config.vision_config.image_size
    for down, across in sorted({(height // pixels, width // pixels) for height, width in config.image_grid_pinpoints}):
        height, width = down * side, across * side
        cuts = [(top, 0) for top in range(height // 2 + 1)] + [(0, left) for left in range(1, width // 2 + 1)]
        for top, left in cuts:
            if side**2 + (height - 2 * top) * (width - 2 * left + 1) == tokens:
                yield AnyRes(1 + down * across, side, side, across, top, left, newlines=True)


def _comes_about(config: Any, grid: AnyRes) -> bool:
    """Whether an image of one of the sizes tried lies like this."""
    patch = config.vision_config.patch_size
    height, width = (grid.tiles - 1) // grid.across * grid.height, grid.across * grid.width
    shown = [(height - 2 * grid.top - odd * (grid.top > 0), width - 2 * grid.left - odd * (grid.left > 0)) for odd in (0, 0.5)]
    sizes = {(round(scale * patch * h), round(scale * patch * w)) for scale in SCALES for h, w in shown}
    return any(native_grid(config, size) == grid for size in sizes if min(size) > 0)
