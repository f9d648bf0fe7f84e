"""LLaVA-NeXT: LLaVA with several tiles of an image (AnyRes)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from vtpbench.harness.models.anyres import NEWLINE, AnyRes
from vtpbench.harness.models.family import join_pixels
from vtpbench.harness.models.llava import ImageTiles, Llava, clip_sizes
from vtpbench.harness.models.native_grid import native_grid, solve_grids
from vtpbench.harness.models.token_boxes import tiled
from vtpbench.harness.pruning.batch import ImageGroup, ImageTokens, VisionTokens
from vtpbench.harness.pruning.schedule import Schedule
from vtpbench.pruners.base import Cut, Grid, ModelShape, Selection, TokenView
from vtpbench.pruners.errors import Unsupported
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.transfer import copy_to_device

if TYPE_CHECKING:
    from torch import Tensor


class LlavaNext(Llava):
    """`LlavaNextForConditionalGeneration`, from a checkpoint in Hugging Face form, in one of two protocols.

    `fixed672`: every image becomes 1 + 2 x 2 tiles (of 336 pixels, hence the name), without newlines and without cutting
    padding off, as in the papers on token pruning: 2880 tokens. What is left of the base tile comes first, then what is left
    of the four tiles by rows of the picture that they make up.

    `native`: as many tiles as fit the image, padding cut off and a newline after each row, as transformers does. Newlines
    are vision tokens and count in the budget. A pruner that acts before the language model chooses among the tokens of all
    tiles; of its choice those on padding are dropped, and newlines follow the rows that are left; those of rows without any
    token make up for what is missing. The pruner is asked for as many as, all counted, come nearest to the budget from below:
    one is missing at most where a larger choice only adds to a smaller one. Pruners that merge, shrink the input, or share the
    budget among tiles cannot be counted in this way and are refused. Inside the language model a newline is a token like any
    other.
    """

    name = "llava_next"
    preprocessings: ClassVar[tuple[str, ...]] = ("fixed672", "native")
    elsewhere: ClassVar[str] = "; use preprocessing 'fixed672'"
    """Where a pruner can act that is refused between newlines."""

    @classmethod
    def describe(cls, config: Any, preprocessing: str) -> tuple[ModelShape, int | None]:
        """Shape of a model with this configuration, and the vision tokens of an image where that is fixed."""
        shape, tile = super().describe(config, preprocessing)
        if tile is None or preprocessing == "native":
            why = "no token can leave inside the vision tower under preprocessing 'native' ('fixed672' lets them)"
            return replace(shape, tiles=None, whole_tower=why), None
        return replace(shape, tiles=5), 5 * tile

    @staticmethod
    def model_class() -> Any:
        """Class of transformers that holds the weights."""
        from transformers import LlavaNextForConditionalGeneration

        return LlavaNextForConditionalGeneration

    def group(self, images: Sequence[Image]) -> Sequence[ImageTiles]:
        """Cut images into tiles; group them by geometry."""
        native, side = self.preprocessing == "native", 2 * self.model.config.vision_config.image_size
        pinpoints = self.model.config.image_grid_pinpoints if native else [[side, side]]
        parts = self.pixel_values(images, lambda image: image.convert("RGB"), image_grid_pinpoints=pinpoints)
        if native:
            return self._native_tiles(images, [tiles for part in parts for tiles in part])
        grid = self._fixed_grid
        return [ImageTiles(tuple(range(len(images))), grid, grid.n, join_pixels(parts).flatten(0, 1))]

    @property
    def _fixed_grid(self) -> AnyRes:
        return AnyRes(5, self.side, self.side, across=2)

    @property
    def fixed_geometry(self) -> ImageGroup | None:
        """Five tiles under `fixed672`; under `native` images differ."""
        return None if self.preprocessing == "native" else ImageGroup((), self._fixed_grid, self._fixed_grid.n)

    def group_pixels(self, pixels: Tensor, sizes: Tensor | None, counts: Sequence[int]) -> Sequence[ImageTiles]:
        """Take tiles as the stock processor cuts them: without `sizes`, how they lie is found from themselves."""
        if self.preprocessing != "native":
            raise Unsupported("the stock processor cuts tiles as preprocessing 'native' does")
        config = self.model.config
        if sizes is None:
            grids = solve_grids(config, counts, pixels, self.laid_out)
        else:
            grids = [self.native_grid(height, width) for height, width in sizes.tolist()]
        return group_tiles(pixels, grids)

    def _native_tiles(self, images: Sequence[Image], tiles: Sequence[Tensor]) -> list[ImageTiles]:
        """Group tiles, `(tiles or more, channels, height, width)` of each image, behind which some may be padding."""
        grids = [self.native_grid(image.height, image.width) for image in images]
        return [
            ImageTiles(members, grid, grid.entering, join_pixels([tiles[member][: grid.tiles] for member in members]))
            for grid, members in _alike(grids)
        ]

    def native_grid(self, height: int, width: int) -> AnyRes:
        """Lay out an image of so many pixels natively."""
        return self.laid_out(native_grid(self.model.config, (height, width)))

    def laid_out(self, grid: AnyRes) -> AnyRes:
        """Say how tokens enter the language model that lie like `grid` in the tower."""
        return grid

    @classmethod
    def published_processor(cls, config: Any) -> Any:
        """Image processor that cuts tiles of the tower's size."""
        from transformers import LlavaNextImageProcessorPil

        return LlavaNextImageProcessorPil(**clip_sizes(config), image_grid_pinpoints=config.image_grid_pinpoints)

    def stock_inputs(self, question: str, images: Sequence[Image]) -> dict[str, Any]:
        """Give ids with placeholders, pixels of tiles and sizes; raises `Unsupported` for what stock models cannot do."""
        if self.preprocessing == "fixed672":
            raise Unsupported("transformers lays tiles out with newlines between rows; 'fixed672' has none")
        counts = [self.native_grid(image.height, image.width).entering for image in images]
        pixels = dict(self.image_processor(list(images), return_tensors="pt")) if images else {}
        return {"input_ids": self.expanded_ids(question, counts), **pixels}

    def boxes(self, image: Image, grid: Grid) -> tuple[Image, NDArray[np.float64]]:
        """Find the boxes in the base tile and in the others, on the image twice."""
        assert isinstance(grid, AnyRes)
        return tiled(image, grid)

    def encode(self, group: ImageGroup, schedule: Schedule) -> VisionTokens:
        """Run the tower over the tiles of images with the same geometry."""
        assert isinstance(group.grid, AnyRes)
        if group.grid.newlines and schedule.target_grid is not None:
            raise Unsupported(f"an image cannot be shrunk whose rows end with newlines{self.elsewhere}")
        return super().encode(group, schedule)

    def choose(self, view: TokenView, schedule: Schedule) -> Selection:
        """Let the pruner choose at depth 0; where rows end with newlines so many that with these the budget is met."""
        assert isinstance(view.grid, AnyRes)
        if not view.grid.newlines or view.cut.keep == 0:
            return super().choose(view, schedule)
        if schedule.pruner.scope == "tile" and view.grid.tiled:
            raise Unsupported(f"{schedule.name} shares its budget among tiles, some of which is padding{self.elsewhere}")
        if view.index.is_meta:
            raise Unsupported("how many newlines follow depends on which tokens stay; profile it on a device")
        chosen = [_fit(_single(view, row), schedule) for row in range(len(view.keys))]
        pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
        rows = [keep.features[0] for keep in chosen if keep.features is not None]
        return Selection(
            pad([keep.index[0] for keep in chosen]),
            pad(rows) if rows else None,
            pad([torch.ones_like(keep.index[0], dtype=torch.bool) for keep in chosen]),
            projected=chosen[0].projected,
        )

    def in_sequence(self, image: ImageTokens) -> ImageTokens:
        """Order what is left of an image; where its rows end with newlines, drop padding and add these, as rows of zeros."""
        assert isinstance(image.grid, AnyRes)
        if not len(image.index):
            return image
        if not image.grid.newlines:
            return image.taken(image.grid.raster(image.index))
        cuts, target = image.schedule.cuts, image.grid.lines
        if cuts and cuts[0].at == 0:
            index = image.index.cpu()  # how many newlines there are depends on what was chosen: one wait per image
            room = 0 if image.schedule.pruner.adaptive else cuts[0].keep
            target = target[image.grid.filled(index, room)]
        else:
            index = torch.arange(image.grid.n)
        row = torch.full((image.grid.n,), NEWLINE)
        row[index] = torch.arange(len(index))
        source = copy_to_device(torch.where(target == NEWLINE, 0, row[target.clamp(min=0)]), image.index.device)
        target = copy_to_device(target, image.index.device)
        features = image.features[source] * (target != NEWLINE)[:, None]
        return replace(image, features=features, index=target)

    def embed_images(self, images: Sequence[ImageTokens]) -> Tensor:
        """Project what is left of images; newlines are a vector of the language model's space."""
        rows = super().embed_images(images)
        if self.preprocessing == "fixed672":  # where a row without a place is CLS, or merged
            return rows
        newline = torch.cat([image.index for image in images]) == NEWLINE
        return torch.where(newline[:, None], self.model.model.image_newline.to(rows), rows)


def group_tiles(pixels: Tensor, grids: Sequence[AnyRes]) -> list[ImageTiles]:
    """Group images that are cut into tiles, one after the other, by how these lie."""
    tiles = pixels.split([grid.tiles for grid in grids])
    return [
        ImageTiles(members, grid, grid.entering, torch.cat([tiles[member] for member in members]))
        for grid, members in _alike(grids)
    ]


def _alike(grids: Sequence[AnyRes]) -> list[tuple[AnyRes, tuple[int, ...]]]:
    """Group images by their grid, each by its number."""
    groups: dict[AnyRes, list[int]] = {}
    for member, grid in enumerate(grids):
        groups.setdefault(grid, []).append(member)
    return [(grid, tuple(members)) for grid, members in groups.items()]


def _single(view: TokenView, row: int) -> TokenView:
    """Take one image out of a view."""
    part = slice(row, row + 1)
    return replace(
        view,
        features=view.features[part],
        index=view.index[part],
        keys=view.keys[part],
        questions=view.questions[part],
        evidence={need: value[part] for need, value in view.evidence.items()},
        cls=None if view.cls is None else view.cls[part],
        asked=None if view.asked is None else view.asked[part],
    )


def _fit(view: TokenView, schedule: Schedule) -> Selection:
    """Choose so many tokens of one image that with newlines they are nearest to the budget from below.

    At least the budget without any newline of the image fits, at most the budget and all tokens on padding. The host waits in
    every step of the search: what to ask for next depends on which rows the last choice fell on.
    """
    grid, budget = view.grid, view.cut.keep
    assert isinstance(grid, AnyRes)
    low, high = max(0, budget - grid.sides[0]), min(view.n, budget + grid.padded)
    best = _choose(view, schedule, low)
    while low < high:
        middle = (low + high + 1) // 2
        keep = _choose(view, schedule, middle)
        within = keep.index[0].clamp(0, grid.n - 1)  # a choice of what is not there is refused later, by `validate`
        if len(grid.packed(within.cpu())) <= budget:
            best, low = keep, middle
        else:
            high = middle - 1
    return best


def _choose(view: TokenView, schedule: Schedule, count: int) -> Selection:
    """Let the pruner choose so many tokens of one image, each at a place of its own, without filling."""
    if count == 0:
        return Selection(view.index[:, :0])
    keep = schedule.choose(replace(view, cut=Cut(0, count)))
    if keep.valid is not None:
        real = keep.valid[0].nonzero().flatten()
        features = None if keep.features is None else keep.features[:, real]
        keep = replace(keep, index=keep.index[:, real], features=features, valid=None)
    if keep.merged and (bool((keep.index < 0).any()) or len(keep.index[0].unique()) < keep.k):
        raise Unsupported(f"{schedule.name} gives rows without a place of their own, between which newlines cannot be counted")
    return keep
