"""LLaVA-OneVision: tiles of a SigLIP tower without CLS, laid out and resized before the language model, a Qwen2."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from vtpbench.harness.models.anyres import AnyRes, PackedAnyRes
from vtpbench.harness.models.dimensions import TowerDimensions, clip_dimensions
from vtpbench.harness.models.llava import ImageTiles, tile_side
from vtpbench.harness.models.llava_next import LlavaNext
from vtpbench.harness.models.token_boxes import packed
from vtpbench.harness.pruning.batch import ImageGroup, VisionTokens
from vtpbench.harness.pruning.schedule import Schedule
from vtpbench.pruners.base import Grid, ModelShape
from vtpbench.pruners.errors import Unsupported, UserError

if TYPE_CHECKING:
    from torch import Tensor

AT_MOST = re.compile(r"anyres_max_(\d+)")
"""How a configuration says how many tiles' tokens an enlarged picture may have."""


class LlavaOnevision(LlavaNext):
    """`LlavaOnevisionForConditionalGeneration`, for images; each is cut into tiles, also where a prompt has several.

    The tokens of the base tile come first, then those of the enlarged picture: all tiles are projected, what is padding is cut
    off, and a picture of more than 1.21 times the tokens of nine tiles is resized, bilinearly, to about these. A newline ends
    each row and counts in the budget, as in LLaVA-NeXT's `native`. What a pruner chooses among are the tokens that are left of
    this, in the language model's space already: `VisionTokens.features` are projected, of all tiles. Evidence of the tower is
    laid out, cut off and resized as they are, so that a resized token has the mean of the patches that it is made of.
    """

    name = "llava_onevision"
    preprocessings = ("native",)
    default_template = None
    prefix = 0
    elsewhere = ""

    @classmethod
    def require_supported(cls, config: Any) -> None:
        """Raise `Unsupported` for a variant that would be wrong."""
        if config.vision_feature_select_strategy != "full" or config.vision_feature_layer != -1:
            raise Unsupported("only LLaVA-OneVision that takes all patches of the last vision layer is supported")
        if config.vision_config.model_type != "siglip_vision_model":
            raise Unsupported(f"only LLaVA-OneVision with a SigLIP tower is supported, not {config.vision_config.model_type}")
        if AT_MOST.fullmatch(config.vision_aspect_ratio) is None:
            raise Unsupported(f"only LLaVA-OneVision with anyres_max_N is supported, not {config.vision_aspect_ratio}")
        if getattr(config.text_config, "use_sliding_window", False):
            raise Unsupported("language models with sliding-window attention are not supported; set use_sliding_window to false")

    @classmethod
    def describe(cls, config: Any, preprocessing: str) -> tuple[ModelShape, None]:
        """Shape of a model with this configuration; the number of vision tokens depends on the image."""
        shape, _ = super().describe(config, preprocessing)
        why = "no token can leave inside the vision tower of LLaVA-OneVision, whose tiles are joined and resized behind it"
        side = tile_side(config)
        example = PackedAnyRes.of(AnyRes(5, side, side, across=2, top=round(side / 4)), 9)  # of 640 x 480 pixels in tiles of 384
        return replace(shape, whole_tower=why, example=example), None

    @staticmethod
    def model_class() -> Any:
        """Class of transformers that holds the weights."""
        from transformers import LlavaOnevisionForConditionalGeneration

        return LlavaOnevisionForConditionalGeneration

    @classmethod
    def dimensions(cls, config: Any) -> tuple[TowerDimensions, tuple[int, ...]]:
        """Sizes of the SigLIP tower; the projector takes all tokens of all tiles, and counts as a part of it."""
        tower, projector = clip_dimensions(config)
        return replace(tower, cls=0, merger=projector), ()

    @classmethod
    def published_processor(cls, config: Any) -> Any:
        """Image processor that cuts tiles of the tower's size; colours are centred at one half."""
        from transformers import LlavaOnevisionImageProcessorPil

        side, half = config.vision_config.image_size, [0.5] * 3
        sizes = {"size": {"height": side, "width": side}, "image_grid_pinpoints": config.image_grid_pinpoints}
        return LlavaOnevisionImageProcessorPil(**sizes, image_mean=half, image_std=half)

    def laid_out(self, grid: AnyRes) -> AnyRes:
        """Give how the tokens lie once the enlarged picture is resized."""
        found = AT_MOST.fullmatch(self.model.config.vision_aspect_ratio)
        assert found is not None, "others are refused"
        return PackedAnyRes.of(grid, int(found[1]))

    def group_pixels(self, pixels: Tensor, sizes: Tensor | None, counts: Sequence[int]) -> Sequence[ImageTiles]:
        """Take tiles as the stock processor cuts them where images are given one by one, not as lists of several."""
        if sizes is not None and sum(self.native_grid(*size).tiles for size in sizes.tolist()) != len(pixels):
            raise UserError(
                "images of a prompt that the processor gets as one list are padded, not cut into tiles; "
                "give it the images of all prompts as one flat list"
            )
        return super().group_pixels(pixels, sizes, counts)

    def boxes(self, image: Image, grid: Grid) -> tuple[Image, NDArray[np.float64]]:
        """Find the boxes in the base tile and in the enlarged picture, on the image twice."""
        assert isinstance(grid, PackedAnyRes)
        return packed(image, grid, grid.sides)

    def encode(self, group: ImageGroup, schedule: Schedule) -> VisionTokens:
        """Run the tower and the projector over the tiles of images with the same geometry, and lay out what they give."""
        assert isinstance(group.grid, PackedAnyRes)
        tokens, lay_out = super().encode(group, schedule), group.grid.lay_out
        return replace(
            tokens,
            features=lay_out(tokens.features),
            evidence={need: lay_out(value) for need, value in tokens.evidence.items()},
        )

    def behind_tower(self, tokens: Tensor) -> Tensor:
        """Project all tokens of tiles: only what is projected can be resized as the model does it."""
        return self.model.model.multi_modal_projector(tokens)  # type: ignore[no-any-return] # found by attribute

    def project(self, features: Tensor) -> Tensor:
        """Leave features alone: they are projected."""
        return features
