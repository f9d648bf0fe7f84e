"""InternVL3 and 3.5: a picture as tiles that divide it evenly, a tower with CLS, 2 x 2 patches joined into a token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from vtpbench.harness.models.dimensions import TowerDimensions, clip_dimensions
from vtpbench.harness.models.family import Family, join_pixels
from vtpbench.harness.models.internvl_tiles import TilesInTurn, arrangement, joined, tile_side
from vtpbench.harness.models.llava import ImageTiles, at_size, tiles_of
from vtpbench.harness.models.llava_next import group_tiles
from vtpbench.harness.models.positions import position_limit
from vtpbench.harness.models.token_boxes import stretched_tiles
from vtpbench.harness.pruning.batch import ImageGroup, ImageTokens, VisionTokens
from vtpbench.harness.pruning.encoder_evidence import AttentionNames, encoder_evidence, record_activations
from vtpbench.harness.pruning.schedule import Schedule
from vtpbench.pruners.base import ATTENTION_KINDS, Evidence, Grid, ModelShape
from vtpbench.pruners.errors import Unsupported, UserError
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

AROUND = ("<img>", "</img>")
"""What stands before and behind the tokens of an image; the stock processor writes it, not the template."""
ATTENTION = AttentionNames("attention", "q_norm", "k_norm")
"""The norms stand behind the projections, and do nothing in the tower of 300 million parameters."""


class InternVL(Family):
    """`InternVLForConditionalGeneration`: InternVL3 and 3.5 in Hugging Face form, tiles of 256 tokens and a thumbnail.

    `lmms_eval` is the default: a picture is stretched to the grid of 1 to 12 tiles whose shape is nearest to its own, and cut;
    with several tiles the whole picture, a thumbnail, comes behind them. Pruners see it first, as the base tile. `dynamic`
    does the same with the numbers that the checkpoint names, `single448` makes one tile (of 448 pixels, hence the name) of
    every picture.

    A token is the rows of 2 x 2 patches side by side, four times as wide as the tower; the projector takes it from there. Cuts
    at depth 0 act before the projector. The tower's CLS is dropped before the projector, so that it cannot be kept and nothing
    says that it attends to what matters: `has_cls` is false, and pruners rank by what tokens receive. Who asks for evidence
    `cls` gets it.
    """

    preprocessings = ("lmms_eval", "single448", "dynamic")
    cropping: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
        {
            "lmms_eval": {"crop_to_patches": True, "min_patches": 1, "max_patches": 12},
            "single448": {"crop_to_patches": False},
            "dynamic": {"crop_to_patches": True},
        }
    )
    """What the image processor is told; its own settings hold where nothing is said."""

    def __init__(
        self, model: Any, tokenizer: Any, image_processor: Any, chat_template: str, preprocessing: str = "dynamic"
    ) -> None:
        self.model, self.tokenizer, self.image_processor = model, tokenizer, image_processor
        self.chat_template, self.preprocessing = chat_template, preprocessing
        self.image_id = model.config.image_token_id
        self.shape, _ = self.describe(model.config, preprocessing)
        self.side = tile_side(model.config)

    @staticmethod
    def model_class() -> Any:
        """Class of transformers that holds the weights."""
        from transformers import InternVLForConditionalGeneration

        return InternVLForConditionalGeneration

    @classmethod
    def describe(cls, config: Any, preprocessing: str) -> tuple[ModelShape, int | None]:
        """Shape of a model with this configuration, and the vision tokens of an image where every image is one tile."""
        vision, text = config.vision_config, config.text_config
        if config.vision_feature_layer != -1 or config.vision_feature_select_strategy != "default":
            raise Unsupported("only InternVL that takes the last layer of its tower, without CLS, is supported")
        if config.downsample_ratio != 0.5 or not vision.use_mean_pooling:
            raise Unsupported("only InternVL that joins 2 x 2 patches, without a norm behind its tower, is supported")
        if getattr(text, "use_sliding_window", True) and "sliding_attention" in (getattr(text, "layer_types", None) or ()):
            raise Unsupported("InternVL with sliding-window attention is not supported; set use_sliding_window to false")
        single, side = preprocessing == "single448", tile_side(config)
        shape = ModelShape(
            family="internvl",
            decoder_layers=text.num_hidden_layers,
            decoder_heads=text.num_attention_heads,
            decoder_width=text.hidden_size,
            vision_layers=vision.num_hidden_layers,
            vision_width=vision.hidden_size,
            feature_layer=vision.num_hidden_layers - 1,
            has_cls=False,
            full_attention=tuple(range(vision.num_hidden_layers)),
            tiles=1 if single else None,
            positions=position_limit(text),
            whole_tower="no token can leave inside the vision tower of InternVL, whose patches are joined behind it",
            example=Grid(13, side, side, across=4),  # of any picture of 4 x 3, 640 x 480 for one
        )
        return shape, side**2 if single else None

    @classmethod
    def dimensions(cls, config: Any) -> tuple[TowerDimensions, tuple[int, ...]]:
        """Sizes of the tower, and of a projector that takes four patches side by side."""
        vision, width = config.vision_config, config.text_config.hidden_size
        tower, _ = clip_dimensions(config)
        return replace(tower, patches=4), (4 * vision.hidden_size, width, width)

    @classmethod
    def published_processor(cls, config: Any) -> Any:
        """Image processor that cuts up to 12 tiles of the tower's size, with ImageNet's colours."""
        from transformers import GotOcr2ImageProcessorPil
        from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

        height, width = config.vision_config.image_size
        colours = {"image_mean": IMAGENET_DEFAULT_MEAN, "image_std": IMAGENET_DEFAULT_STD}
        return GotOcr2ImageProcessorPil(size={"height": height, "width": width}, min_patches=1, max_patches=12, **colours)

    @property
    def decoder(self) -> nn.Module:
        """The language model: a Qwen2 in InternVL3, a Qwen3 in 3.5."""
        return self.model.model.language_model  # type: ignore[no-any-return]  # found by attribute

    @property
    def vision_tower(self) -> nn.Module:
        """The InternViT."""
        return self.model.model.vision_tower  # type: ignore[no-any-return]  # found by attribute

    @property
    def fixed_geometry(self) -> ImageGroup | None:
        """One tile under `single448`; else images differ."""
        return ImageGroup((), self._tiled(1, 1), self.side**2) if self.preprocessing == "single448" else None

    def render(self, question: str, n_images: int) -> str:
        """Put a question and its images into the template, and what stands around images around them."""
        marker = self.tokenizer.convert_ids_to_tokens(self.image_id)
        return super().render(question, n_images).replace(marker, marker.join(AROUND))

    def group(self, images: Sequence[Image]) -> Sequence[ImageTiles]:
        """Cut images into tiles; group them by geometry. What is transparent is the image processor's affair."""
        told = self.cropping[self.preprocessing]
        parts = self.pixel_values(images, do_convert_rgb=True, **told)
        return group_tiles(join_pixels(parts), [self._grid(image) for image in images])

    def group_pixels(self, pixels: Tensor, sizes: Tensor | None, counts: Sequence[int]) -> Sequence[ImageTiles]:
        """Take tiles as the stock processor cuts them; how those of an image lie is found from its thumbnail."""
        del sizes
        tiles = [count // self.side**2 for count in counts]
        if [count * self.side**2 for count in tiles] != list(counts) or sum(tiles) != len(pixels):
            tokens = ", ".join(map(str, counts))
            raise UserError(
                f"{len(pixels)} tiles of {self.side**2} tokens do not fit images of {tokens} tokens; beam search and several "
                "answers to a prompt (num_beams, num_return_sequences) cannot be pruned: ask for one answer"
            )
        return group_tiles(pixels, [self._tiled(*arrangement(own)) for own in pixels.split(tiles)])

    def pixels(self, group: ImageGroup) -> Tensor:
        """Give the tiles of each image, the thumbnail last, `(images, tiles, channels, height, width)`."""
        return tiles_of(group).by_image

    def _grid(self, image: Image) -> TilesInTurn:
        """How the tokens of an image lie: the numbers of rows and columns of tiles are the image processor's choice."""
        from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

        told, processor = self.cropping[self.preprocessing], self.image_processor
        if not told["crop_to_patches"]:
            return self._tiled(1, 1)
        limits = (told.get(name, getattr(processor, name)) for name in ("min_patches", "max_patches"))
        size = processor.size["height"], processor.size["width"]
        across, down = get_optimal_tiled_canvas((image.height, image.width), size, *limits)
        return self._tiled(down, across)

    def _tiled(self, down: int, across: int) -> TilesInTurn:
        """Lay out `down` x `across` tiles and, where these are several, a base tile."""
        tiles = down * across
        return TilesInTurn(1 if tiles == 1 else 1 + tiles, self.side, self.side, across)

    def encode(self, group: ImageGroup, schedule: Schedule) -> VisionTokens:
        """Run the tower over the tiles of images with the same geometry, and put the base tile first."""
        tiles, unit = tiles_of(group), 2 * self.model.config.vision_config.patch_size[0]
        pixels, grid = at_size(tiles.pixels, tiles.grid, schedule.target_grid, unit)
        parts = [self._run_tower(chunk, grid, schedule.needs) for chunk in pixels.split(self.images_per_pass)]

        def whole(tiles: Sequence[Tensor]) -> Tensor:
            rows = torch.cat(list(tiles))
            return rows.reshape(-1, grid.tiles, *rows.shape[1:]).roll(1, dims=1).flatten(1, 2)

        return VisionTokens(
            members=group.members,
            features=whole([features for features, _ in parts]),
            index=torch.arange(grid.n, device=self.device).expand(len(group.members), -1),
            cls=None,
            grid=grid,
            evidence={need: whole([evidence[need] for _, evidence in parts]) for need in parts[0][1]},
            original=group.tokens,
            schedule=schedule,
            tower=(grid.height * grid.width,) * self.shape.vision_layers,
        )

    def _run_tower(self, pixels: Tensor, grid: Grid, needs: frozenset[Evidence]) -> tuple[Tensor, dict[Evidence, Tensor]]:
        """Vision tokens `(tiles, n, 4 * width)` and evidence of tiles whose tokens lie like one of `grid`."""
        self.captured_passes.refuse("tower", "towers of this family are not captured")
        tower: Any = self.vision_tower
        layers, depth = tower.encoder.layer, self.shape.vision_layers
        outputs = {need.layer % depth for need in needs if need.kind == "hidden"}
        attended = {need.layer % depth for need in needs if need.kind in ATTENTION_KINDS}
        with record_activations(layers, outputs, attended, ATTENTION.module, ATTENTION.projections) as seen:
            states = tower(pixel_values=pixels.to(self.device, self.model.dtype)).last_hidden_state
            found = encoder_evidence(layers, seen, needs, ATTENTION)
        features = joined(states[:, 1:], grid).flatten(2)
        evidence = {need: joined(value, grid).mean(2) for need, value in found.items()}
        evidence.update((need, self.project(features).float()) for need in needs if need.kind == "projected")
        return features, evidence

    def in_sequence(self, image: ImageTokens) -> ImageTokens:
        """Order what is left of an image: tile after tile, the base tile last."""
        assert isinstance(image.grid, TilesInTurn)
        return image.taken(image.grid.raster(image.index))

    def project(self, features: Tensor) -> Tensor:
        """Apply the norm and the two-layer MLP."""
        return self.model.model.multi_modal_projector(features)  # type: ignore[no-any-return] # found by attribute

    def stock_inputs(self, question: str, images: Sequence[Image]) -> dict[str, Any]:
        """Give ids with placeholders, and the tiles of all images, one after the other."""
        counts, tiles = [0] * len(images), [torch.empty(0)] * len(images)
        for group in self.group(images) if images else ():
            for member, own in zip(group.members, self.pixels(group), strict=True):
                counts[member], tiles[member] = group.tokens, own
        pixels = {"pixel_values": torch.cat(tiles)} if images else {}
        return {"input_ids": self.expanded_ids(question, counts), **pixels}

    def boxes(self, image: Image, grid: Grid) -> tuple[Image, NDArray[np.float64]]:
        """Find the boxes in the thumbnail and in the tiles, which divide the picture evenly, on the image twice."""
        return stretched_tiles(image, grid) if grid.tiles > 1 else super().boxes(image, grid)
