"""LLaVA-1.5: CLIP tower, one tile, an MLP projector, a Llama; and what LLaVA-NeXT has in common with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL.Image import Image

from vtpbench.harness.models.dimensions import TowerDimensions, clip_dimensions
from vtpbench.harness.models.family import Family, join_pixels
from vtpbench.harness.models.positions import position_limit
from vtpbench.harness.models.pretrained import read_pretrained
from vtpbench.harness.models.token_boxes import padded_or_cropped
from vtpbench.harness.pruning.batch import ImageGroup, VisionTokens
from vtpbench.harness.pruning.captured_passes import WATCHED, Pass, named
from vtpbench.harness.pruning.encoder_evidence import encoder_evidence, record_activations
from vtpbench.harness.pruning.encoder_hooks import EncoderPlan, encoder_hooks
from vtpbench.harness.pruning.schedule import Schedule, ignore_selection
from vtpbench.pruners.base import ATTENTION_KINDS, Evidence, Grid, ModelShape, offset_index
from vtpbench.pruners.errors import Unsupported
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

VICUNA_V1 = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite "
    "answers to the user's questions."
    "{% for m in messages %}{{ ' USER: ' if m.role == 'user' else ' ASSISTANT: ' }}"
    "{% for c in m.content if c.type == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m.content if c.type == 'text' %}{{ c.text }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
"""The prompt that LLaVA-1.5 was trained with; used where a checkpoint brings no template."""
LARGEST_PASS = 8
"""Tiles up to which a pass of the tower is captured: a GPU works as long on more as a host needs to launch them."""


@dataclass(frozen=True)
class ImageTiles(ImageGroup):
    """Images cut into tiles; `pixels` is `(images * tiles, channels, height, width)` float32."""

    pixels: Tensor

    @property
    def by_image(self) -> Tensor:
        """The tiles of each image, `(images, tiles, channels, height, width)`."""
        return self.pixels.reshape(len(self.members), -1, *self.pixels.shape[1:])


def tiles_of(group: ImageGroup) -> ImageTiles:
    """Take a group for what the families that cut images into tiles made it."""
    assert isinstance(group, ImageTiles), "what `group` gave"
    return group


@dataclass(frozen=True)
class EncodedTiles:
    """Tiles behind the tower.

    Attributes
    ----------
    features : (tiles, n, width) of the tokens, without what is before them
    before : (tiles, prefix, width) what the tower has before them: CLS, or nothing
    index : (tiles, n) place of each token in its tile, -1 for one that has none; None where all are there, in order
    evidence : over the n tokens
    tower, invalid : see `VisionTokens`

    """

    features: Tensor
    before: Tensor
    index: Tensor | None
    evidence: dict[Evidence, Tensor]
    tower: tuple[int, ...]
    invalid: Tensor | None

    @property
    def tensors(self) -> Sequence[Tensor]:
        """All that the device computed."""
        there = [each for each in (self.before, self.index, self.invalid) if each is not None and each.numel()]
        return [self.features, *there, *self.evidence.values()]

    def copied(self) -> EncodedTiles:
        """Give the same in memory of its own."""
        index, invalid = (None if each is None else each.clone() for each in (self.index, self.invalid))
        evidence = {need: value.clone() for need, value in self.evidence.items()}
        return EncodedTiles(self.features.clone(), self.before.clone(), index, evidence, self.tower, invalid)

    @classmethod
    def join(cls, parts: Sequence[EncodedTiles]) -> EncodedTiles:
        """Put tiles of several passes one behind the other."""
        if len(parts) == 1:
            return parts[0]
        invalid_flags = [part.invalid for part in parts if part.invalid is not None]
        places = [part.index for part in parts if part.index is not None]
        return cls(
            torch.cat([part.features for part in parts]),
            torch.cat([part.before for part in parts]),
            torch.cat(places) if places else None,
            {need: torch.cat([part.evidence[need] for part in parts]) for need in parts[0].evidence},
            parts[0].tower,
            torch.stack(invalid_flags).any() if invalid_flags else None,
        )


class Llava(Family):
    """`LlavaForConditionalGeneration`, from a checkpoint in Hugging Face form."""

    name: ClassVar[str] = "llava"
    preprocessings: ClassVar[tuple[str, ...]] = ("pad", "crop")
    default_template: ClassVar[str | None] = VICUNA_V1
    prefix: ClassVar[int] = 1
    """Tokens of a tile before its patches, in the tower: CLS."""

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any, chat_template: str, preprocessing: str) -> None:
        self.model, self.tokenizer, self.image_processor = model, tokenizer, image_processor
        self.chat_template, self.preprocessing = chat_template, preprocessing
        self.image_id = model.config.image_token_id
        self.shape, _ = self.describe(model.config, preprocessing)
        self.side = tile_side(model.config)

    @classmethod
    def require_supported(cls, config: Any) -> None:
        """Raise `Unsupported` for a variant that would be wrong."""
        layer = config.vision_feature_layer
        if config.vision_feature_select_strategy != "default" or not isinstance(layer, int) or layer >= 0:
            raise Unsupported("only LLaVA that takes one vision layer, counted from the end, without CLS is supported")
        if getattr(config.text_config, "sliding_window", None) is not None:
            raise Unsupported("language models with sliding-window attention (Mistral 7B v0.1) are not supported")

    @classmethod
    def describe(cls, config: Any, preprocessing: str) -> tuple[ModelShape, int | None]:
        """Shape of a model with this configuration, and the vision tokens of an image."""
        del preprocessing
        cls.require_supported(config)
        vision, text = config.vision_config, config.text_config
        shape = ModelShape(
            family=cls.name,
            decoder_layers=text.num_hidden_layers,
            decoder_heads=text.num_attention_heads,
            decoder_width=text.hidden_size,
            vision_layers=vision.num_hidden_layers,
            vision_width=vision.hidden_size,
            feature_layer=vision.num_hidden_layers + config.vision_feature_layer,
            has_cls=cls.prefix > 0,
            full_attention=tuple(range(vision.num_hidden_layers)),
            tiles=1,
            positions=position_limit(text),
        )
        return shape, tile_side(config) ** 2

    @classmethod
    def clip_model(cls, config: Any) -> str | None:
        """Name the CLIP model of LLaVA-1.5 and LLaVA-NeXT where the tower has its sizes."""
        vision = config.vision_config
        sizes = (vision.hidden_size, vision.num_hidden_layers, vision.patch_size, vision.image_size)
        is_clip = getattr(vision, "model_type", "") == "clip_vision_model"
        return "openai/clip-vit-large-patch14-336" if is_clip and sizes == (1024, 24, 14, 336) else None

    @staticmethod
    def model_class() -> Any:
        """Class of transformers that holds the weights."""
        from transformers import LlavaForConditionalGeneration

        return LlavaForConditionalGeneration

    @classmethod
    def dimensions(cls, config: Any) -> tuple[TowerDimensions, tuple[int, ...]]:
        """Sizes of the CLIP tower and of the projector."""
        return clip_dimensions(config)

    @classmethod
    def published_processor(cls, config: Any) -> Any:
        """CLIP's image processor for pictures of the tower's size."""
        from transformers import CLIPImageProcessorPil

        return CLIPImageProcessorPil(**clip_sizes(config))

    def stock_inputs(self, question: str, images: Sequence[Image]) -> dict[str, Any]:
        """Give ids with placeholders, and pixels from transformers' own processor: padded to squares, or cropped."""
        from transformers import LlavaImageProcessorPil

        pad = LlavaImageProcessorPil(do_pad=True, **clip_sizes(self.model.config))
        processor = pad if self.preprocessing == "pad" else self.image_processor
        pixels = {"pixel_values": processor(list(images), return_tensors="pt")["pixel_values"]} if images else {}
        return {"input_ids": self.expanded_ids(question, [self.side**2] * len(images)), **pixels}

    def boxes(self, image: Image, grid: Grid) -> tuple[Image, NDArray[np.float64]]:
        """Find the boxes in a square that was padded or cropped."""
        return padded_or_cropped(self, image, grid)

    @classmethod
    def read_tokenizer(cls, path: Path) -> Any:
        """Read it as a part of the checkpoint's processor."""
        from transformers import AutoProcessor

        return read_pretrained(AutoProcessor, path).tokenizer

    @property
    def decoder(self) -> nn.Module:
        """The language model, a Llama."""
        return self.model.model.language_model  # type: ignore[no-any-return]  # found by attribute

    @property
    def vision_tower(self) -> nn.Module:
        """The CLIP tower."""
        return self.model.model.vision_tower  # type: ignore[no-any-return]  # found by attribute

    @property
    def tower_layers(self) -> Sequence[nn.Module]:
        """Those of the CLIP tower."""
        return self.model.model.vision_tower.encoder.layers  # type: ignore[no-any-return]  # found by attribute

    @property
    def fixed_geometry(self) -> ImageGroup | None:
        """One tile, at the tower's own size."""
        return ImageGroup((), Grid(1, self.side, self.side), self.side**2)

    def group(self, images: Sequence[Image]) -> Sequence[ImageTiles]:
        """Preprocess: `pad` to a square of the mean colour as the original LLaVA does, or `crop` as the checkpoint says."""
        ready = self._padded if self.preprocessing == "pad" else _in_colour
        return self.group_pixels(join_pixels(self.pixel_values(images, ready)), None, ())

    def _padded(self, image: Image) -> Image:
        return _square(_in_colour(image), tuple(int(255 * mean) for mean in self.image_processor.image_mean))

    def group_pixels(self, pixels: Tensor, sizes: Tensor | None, counts: Sequence[int]) -> Sequence[ImageTiles]:
        """Take images of the tower's own size, `(images, channels, height, width)`."""
        del sizes, counts
        return [ImageTiles(tuple(range(len(pixels))), Grid(1, self.side, self.side), self.side**2, pixels)]

    def pixels(self, group: ImageGroup) -> Tensor:
        """Give the tiles of each image, `(images, tiles, channels, height, width)`."""
        return tiles_of(group).by_image

    def encode(self, group: ImageGroup, schedule: Schedule) -> VisionTokens:
        """Run the tower over the tiles of images with the same geometry."""
        tiles, size, patch = tiles_of(group), schedule.target_grid, self.model.config.vision_config.patch_size
        pixels, grid = at_size(tiles.pixels, tiles.grid, size, patch)
        plan = EncoderPlan(schedule, Grid(1, grid.height, grid.width), self.prefix)
        chunks = pixels.split(self.images_per_pass)
        encoded = EncodedTiles.join([self._tiles(chunk, plan, size is not None) for chunk in chunks])
        whole = partial(_join_tiles, tiles=grid.tiles)
        images = len(group.members)
        if encoded.index is None:
            index = torch.arange(grid.n, device=encoded.features.device).expand(images, -1)
        else:
            place = torch.arange(grid.tiles, device=encoded.index.device).repeat(images)[:, None] * plan.grid.n
            index = whole(offset_index(encoded.index, place))
        return VisionTokens(
            members=group.members,
            features=whole(encoded.features),
            index=index,
            cls=whole(encoded.before.float()) if self.prefix else None,
            grid=grid,
            evidence={need: whole(value) for need, value in encoded.evidence.items()},
            original=group.tokens,
            schedule=schedule,
            tower=encoded.tower,
            invalid=encoded.invalid,
        )

    def _tiles(self, pixels: Tensor, plan: EncoderPlan, off_size: bool) -> EncodedTiles:
        """Run the tower over tiles, or replay it; those that are `off_size` get interpolated position embeddings."""
        passes, there = self.captured_passes, pixels.to(self.device, self.model.dtype)
        if not passes.worth(len(pixels), LARGEST_PASS):
            return self._run_tower(there, plan, off_size)
        watched = plan.cuts and plan.schedule.observer is not ignore_selection
        encoded, replayed = passes.run(
            Pass(
                name=named("tower", plan.schedule.name if plan.cuts else None),
                key=(plan if plan.cuts else (plan.needs, plan.grid), off_size),
                tensors=[there],
                launch=lambda: self._run_tower(there, plan, off_size),
                again=lambda inputs, place: self._run_tower(inputs[0], plan, off_size),
                obstacle=WATCHED if watched else "",
            )
        )
        return encoded.copied() if replayed else encoded

    def _run_tower(self, pixels: Tensor, plan: EncoderPlan, off_size: bool) -> EncodedTiles:
        """Run it over tiles, on the device."""
        tower, layers, needs = self.vision_tower, self.tower_layers, plan.left()
        outputs = {self.shape.feature_layer, *(plan.layer(n.layer) for n in needs if n.kind == "hidden")}
        attended = {plan.layer(n.layer) for n in plan.needs if n.kind in ATTENTION_KINDS}
        with record_activations(layers, outputs, attended) as seen, encoder_hooks(layers, plan, seen) as pruning_state:
            tower(pixel_values=pixels, interpolate_pos_encoding=off_size)
            evidence = encoder_evidence(layers, seen, needs, prefix=self.prefix)
        states = seen.outputs[self.shape.feature_layer]
        before, features = states[:, : self.prefix], self.behind_tower(states[:, self.prefix :])
        for need in needs:
            if need.kind == "projected":
                evidence[need] = self.project(features).float()
            elif need.kind == "joint":
                evidence[need] = self.text_tower.project(features)
        return EncodedTiles(features, before, pruning_state.index, evidence, pruning_state.per_layer, pruning_state.invalid)

    def behind_tower(self, tokens: Tensor) -> Tensor:
        """Make of a tile's tokens `(tiles, n, vision width)` what pruners choose among, for all of them: here nothing."""
        return tokens

    def project(self, features: Tensor) -> Tensor:
        """Apply the two-layer MLP."""
        return self.model.model.multi_modal_projector(features)  # type: ignore[no-any-return] # found by attribute


def tile_side(config: Any) -> int:
    """Tokens along each side of a picture that the tower sees at its own size."""
    return int(config.vision_config.image_size // config.vision_config.patch_size)


def at_size(pixels: Tensor, grid: Grid, size: tuple[int, int] | None, unit: int) -> tuple[Tensor, Grid]:
    """Shrink tiles to `size`, height and width in tokens of `unit` x `unit` pixels; None leaves them alone."""
    if size is None:
        return pixels, grid
    shrunk = torch.nn.functional.interpolate(pixels, [unit * tokens for tokens in size], mode="bicubic", antialias=True)
    return shrunk, replace(grid, height=size[0], width=size[1])


def _join_tiles(x: Tensor, tiles: int) -> Tensor:
    """Put the tokens of an image's tiles one behind the other: `(images * tiles, n, ...)` to `(images, tiles * n, ...)`."""
    return x.reshape(-1, tiles * x.shape[1], *x.shape[2:])


def _in_colour(image: Image) -> Image:
    return image.convert("RGB")


def _square(image: Image, fill: tuple[int, ...]) -> Image:
    """Centre an image on the smallest square that holds it."""
    side = max(image.size)
    if image.width == image.height:
        return image
    square = Pillow.new("RGB", (side, side), fill)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def clip_sizes(config: Any) -> dict[str, Any]:
    """Sizes that CLIP's image processor is made with, for pictures of the tower's side."""
    pixels = config.vision_config.image_size
    return {"size": {"shortest_edge": pixels}, "crop_size": {"height": pixels, "width": pixels}}
