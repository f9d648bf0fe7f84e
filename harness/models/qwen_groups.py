"""Images of a Qwen-VL model, those whose tokens lie alike together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL.Image import Image

from vtpbench.harness.pruning.batch import ImageGroup
from vtpbench.pruners.base import Grid
from vtpbench.pruners.errors import Unsupported
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SizedImages(ImageGroup):
    """Images whose tokens lie alike, as they came."""

    images: tuple[Image, ...]


@dataclass(frozen=True)
class ImagePatches(ImageGroup):
    """Images whose tokens lie alike, cut into patches; `patches` is `(images, 4 * tokens, values)`."""

    patches: Tensor


def group_by_grid(images: Sequence[Image], grids: Sequence[Grid]) -> list[SizedImages]:
    """Group images by how their tokens lie."""
    groups: dict[Grid, list[int]] = {}
    for member, grid in enumerate(grids):
        groups.setdefault(grid, []).append(member)
    return [
        SizedImages(tuple(members), grid, grid.n, tuple(images[member] for member in members)) for grid, members in groups.items()
    ]


def group_patches(pixels: Tensor, sizes: Tensor) -> list[ImagePatches]:
    """Group patches of images one after the other, `(patches, values)`, by `sizes`: patches in time, height and width.

    Raises
    ------
    Unsupported : a video

    """
    groups: dict[Grid, list[Tensor]] = {}
    members: dict[Grid, list[int]] = {}
    whole = sizes.tolist()
    for member, (part, (time, height, width)) in enumerate(zip(pixels.split(sizes.prod(-1).tolist()), whole, strict=True)):
        if time != 1:
            raise Unsupported("videos are not supported; give images")
        grid = Grid(1, height // 2, width // 2)
        groups.setdefault(grid, []).append(part)
        members.setdefault(grid, []).append(member)
    return [ImagePatches(tuple(members[grid]), grid, grid.n, torch.stack(parts)) for grid, parts in groups.items()]
