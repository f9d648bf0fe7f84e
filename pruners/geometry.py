"""Sizes: how an image's tokens lie, what is known of a model before it runs, and where tokens leave it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from vtpbench.pruners.lazy import torch
from vtpbench.pruners.transfer import copy_to_device

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """How an image's vision tokens lie: `tiles` pictures of `height` x `width` tokens, raster order, base tile first.

    Attributes
    ----------
    across : tiles in a row of the enlarged picture that all tiles but the base tile make up
    top, left : tokens at each side of it that show only padding and do not enter the language model

    """

    tiles: int
    height: int
    width: int
    across: int = 1
    top: int = 0
    left: int = 0

    @property
    def pictures(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of the rectangles in which the tokens lie in raster order, one rectangle behind the other."""
        return ((self.height, self.width),) * self.tiles

    @property
    def tiled(self) -> bool:
        """Whether these rectangles are the tiles that the tower saw, equally large."""
        return True

    @property
    def n(self) -> int:
        """Tokens of all rectangles together."""
        return sum(rows * columns for rows, columns in self.pictures)

    @cached_property
    def enlarged(self) -> Tensor:
        """Tokens of the enlarged picture where they show more than padding, `(rows, columns)` on the host; none of one tile."""
        tile, down = self.height * self.width, (self.tiles - 1) // self.across
        ids = torch.arange(tile, self.n).reshape(down, self.across, self.height, self.width).transpose(1, 2)
        picture = ids.reshape(down * self.height, self.across * self.width)
        return picture[self.top : len(picture) - self.top, self.left : picture.shape[1] - self.left]

    @cached_property
    def sequence(self) -> Tensor:
        """Tokens in the order in which they enter: the base tile, then the enlarged picture in raster order; on the host."""
        return torch.cat([torch.arange(self.height * self.width), self.enlarged.flatten()])


@lru_cache(maxsize=64)
def sequence_on(grid: Grid, device: torch.device) -> Tensor:
    """Bring a grid's sequence to a device, once."""
    return copy_to_device(grid.sequence, device)


@dataclass(frozen=True)
class TextTowerSource:
    """The CLIP model that a vision tower is part of, whose text tower reads questions.

    Attributes
    ----------
    name : its hub id or folder
    weights : hash of its files; None where they are not on this machine
    folder : where it is, None where it is not

    """

    name: str
    weights: str | None = None
    folder: str | None = None


@dataclass(frozen=True)
class ModelShape:
    """What a pruner may know of a model before it runs."""

    family: str
    decoder_layers: int
    decoder_heads: int
    decoder_width: int
    vision_layers: int
    vision_width: int
    feature_layer: int
    """Module index of the vision layer whose output are the features."""
    has_cls: bool
    """Whether pruners may go by the tower's CLS token, and keep it."""
    full_attention: tuple[int, ...]
    """Vision layers in which every token sees every other."""
    multi_axis_positions: bool = False
    """Positions are (time, height, width); they can be kept, not renumbered."""
    folder: str | None = None
    """Folder of the checkpoint, where pruners that were trained for this model are looked for."""
    tiles: int | None = None
    """Tiles of an image, where every image has equally many."""
    positions: int | None = None
    """Tokens of prompt and answer that the language model was made for, where that is limited."""
    whole_tower: str = ""
    """Why no token can leave inside the vision tower; empty where tokens can."""
    text_tower: TextTowerSource | None = None
    """What was trained together with the vision tower to read text; None where there is no such thing or none is known."""
    example: Grid = Grid(1, 25, 40)
    """How the tokens of a picture lie that plans suppose, where pictures differ."""

    def vision_layer(self, fraction: float) -> int:
        """Find the module index of the layer at a fraction of the depth: 9/24 is module 8 of 24, "layer 9" in the papers."""
        return max(1, round(fraction * self.vision_layers)) - 1

    def decoder_layer(self, fraction: float) -> int:
        """Find the boundary at a fraction of the decoder's depth, at least 1."""
        return max(1, round(fraction * self.decoder_layers))


@dataclass(frozen=True)
class Cut:
    """From decoder layer `at` on, `keep` vision tokens of an image remain; 0 = before the language model.

    A negative `at` is a layer of the vision tower, counted from its end: `keep` tokens of a tile go on to the layer's MLP.
    `merged` is how many of the `keep` are means of others, for a pruner whose schedule says so; the rest stay as they are.
    """

    at: int
    keep: int
    merged: int = 0


def average_in(cuts: tuple[Cut, ...], n: int, layers: int) -> float:
    """Compute the mean number of vision tokens that enter a decoder layer under a schedule."""
    total, count, start = 0, n, 0
    for cut in cuts:
        total += count * (cut.at - start)
        count, start = cut.keep, cut.at
    return (total + count * (layers - start)) / layers


LLAVA_1_5_7B = ModelShape("llava", 32, 32, 4096, 24, 1024, 22, True, tuple(range(24)), tiles=1)
"""On which pruners are asked where they act when no model is at hand."""
