"""Layouts of LLaVA-NeXT's images that are found again from tiles and numbers of tokens alone."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import LlavaNextImageProcessorPil

from vtpbench.harness.models.anyres import AnyRes
from vtpbench.harness.models.native_grid import native_grid, solve_grids
from vtpbench.pruners.errors import UserError

PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
CONFIG = SimpleNamespace(image_grid_pinpoints=PINPOINTS, vision_config=SimpleNamespace(image_size=336, patch_size=14))
"""Of LLaVA-NeXT with Vicuna 7B."""
TRANSPOSED = [(2087, 590), (408, 1046), (621, 1290), (336, 336), (224, 224), (30, 900), (900, 30)]
"""Whose tokens are as many as those of an image lying across."""
DRAW = random.Random(0)
SIZES = [*TRANSPOSED, (480, 640), (640, 480), *((DRAW.randint(20, 1200), DRAW.randint(20, 1200)) for _ in range(15))]


def as_in_tower(grid: AnyRes) -> AnyRes:
    return grid


@pytest.fixture(scope="module")
def processor() -> Any:
    size = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
    return LlavaNextImageProcessorPil(**size, image_grid_pinpoints=PINPOINTS)


def tiles(processor: Any, size: tuple[int, int], colour: int | None = None) -> Tensor:
    height, width = size
    noise = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    pixels = noise if colour is None else np.full_like(noise, colour)
    image = Image.fromarray(pixels).resize((width, height))
    return torch.as_tensor(processor(image, return_tensors="pt")["pixel_values"])[0, : native_grid(CONFIG, size).tiles]


@pytest.mark.parametrize("together", [1, 3])
def test_every_layout_is_found_again(together: int, processor: Any) -> None:
    made = [tiles(processor, size) for size in SIZES]
    for first in range(len(SIZES) - together + 1):
        part = slice(first, first + together)
        expected = [native_grid(CONFIG, size) for size in SIZES[part]]
        assert solve_grids(CONFIG, [len(grid.lines) for grid in expected], torch.cat(made[part]), as_in_tower) == expected


def test_what_cannot_be_told_apart_is_refused(processor: Any) -> None:
    for size in TRANSPOSED[:3]:
        count = len(native_grid(CONFIG, size).lines)
        with pytest.raises(UserError, match=r"2 layouts fit .* image_sizes"):
            solve_grids(CONFIG, [count], tiles(processor, size, colour=0), as_in_tower)  # black, as padding is
        with pytest.raises(UserError, match="0 layouts fit"):
            solve_grids(CONFIG, [count + 1], tiles(processor, size), as_in_tower)
