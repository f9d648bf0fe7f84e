"""LLaVA-1.5: CLIP tower, one tile, an MLP projector, a Llama; and what LLaVA-NeXT has in common with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image as Pillow
from PIL.Image import Image
from torch import Tensor, nn

from vtpbench.harness.models.family import PIXELS_AT_ONCE, Family, Target, VisionTokens
from vtpbench.harness.models.pretrained import load_pretrained
from vtpbench.harness.models.template import chat_template
from vtpbench.harness.models.tower import tower_evidence, watching
from vtpbench.pruners.base import ATTENTION_KINDS, Evidence, Grid, ModelShape
from vtpbench.pruners.errors import Unsupported

VICUNA_V1 = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite "
    "answers to the user's questions."
    "{% for m in messages %}{{ ' USER: ' if m.role == 'user' else ' ASSISTANT: ' }}"
    "{% for c in m.content if c.type == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m.content if c.type == 'text' %}{{ c.text }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
"""The prompt that LLaVA-1.5 was trained with; used where a checkpoint brings no template."""


@dataclass(frozen=True)
class Pictures:
    """Images with the same geometry, preprocessed.

    Attributes
    ----------
    members : their numbers among the images that were encoded together
    pixels : (images * tiles, channels, height, width) float32
    grid : how the tokens of an image lie
    tokens : tokens of an image at full size, with all that is put between them

    """

    members: tuple[int, ...]
    pixels: Tensor
    grid: Grid
    tokens: int


class Llava(Family):
    """`LlavaForConditionalGeneration`, from a checkpoint in Hugging Face form."""

    name: ClassVar[str] = "llava"
    preprocessings = ("pad", "crop")

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any, chat_template: str, preprocessing: str) -> None:
        self.model, self.tokenizer, self.image_processor = model, tokenizer, image_processor
        self.chat_template, self.preprocessing = chat_template, preprocessing
        self.image_id = model.config.image_token_id
        self.shape, _ = self.describe(model.config, preprocessing)
        self.side = tile_side(model.config)

    @classmethod
    def template(cls, folder: Path) -> str:
        """Prompt template of a checkpoint; that of LLaVA-1.5 where it brings none."""
        return chat_template(folder) or VICUNA_V1

    @classmethod
    def describe(cls, config: Any, preprocessing: str) -> tuple[ModelShape, int | None]:
        """Shape of a model with this configuration, and the vision tokens of an image."""
        del preprocessing
        layer, vision, text = config.vision_feature_layer, config.vision_config, config.text_config
        if config.vision_feature_select_strategy != "default" or not isinstance(layer, int) or layer >= 0:
            raise Unsupported("only LLaVA that takes one vision layer, counted from the end, without CLS is supported")
        if getattr(text, "sliding_window", None) is not None:
            raise Unsupported("language models with sliding-window attention (Mistral 7B v0.1) are not supported")
        shape = ModelShape(
            family=cls.name,
            decoder_layers=text.num_hidden_layers,
            decoder_heads=text.num_attention_heads,
            decoder_width=text.hidden_size,
            vision_layers=vision.num_hidden_layers,
            vision_width=vision.hidden_size,
            feature_layer=vision.num_hidden_layers + layer,
            has_cls=True,
            full_attention=tuple(range(vision.num_hidden_layers)),
        )
        return shape, tile_side(config) ** 2

    @staticmethod
    def model_class() -> Any:
        """Class of transformers that holds the weights."""
        from transformers import LlavaForConditionalGeneration

        return LlavaForConditionalGeneration

    @classmethod
    def load(
        cls, path: Path, dtype: torch.dtype, device: torch.device, attention: str, preprocessing: str, template: str
    ) -> Llava:
        """Load a checkpoint; the caller has verified that it is one."""
        from transformers import AutoImageProcessor, AutoProcessor

        model = load_pretrained(cls.model_class(), path, device, dtype=dtype, attn_implementation=attention)
        processor = AutoProcessor.from_pretrained(path)
        images = AutoImageProcessor.from_pretrained(path, backend="pil")
        return cls(model, processor.tokenizer, images, template, preprocessing)

    @property
    def decoder(self) -> nn.Module:
        """The Llama."""
        return self.model.model.language_model  # type: ignore[no-any-return]  # found by attribute

    def pictures(self, images: Sequence[Image]) -> list[Pictures]:
        """Preprocess: `pad` to a square of the mean colour as the original LLaVA does, or `crop` as the checkpoint says."""
        ready = [image.convert("RGB") for image in images]
        if self.preprocessing == "pad":
            fill = tuple(int(255 * m) for m in self.image_processor.image_mean)
            ready = [_square(image, fill) for image in ready]
        pixels: Tensor = self.image_processor(ready, return_tensors="pt")["pixel_values"]
        return [Pictures(tuple(range(len(ready))), pixels, Grid(1, self.side, self.side), self.side**2)]

    @torch.inference_mode()
    def encode(self, images: Sequence[Image], needs: frozenset[Evidence], target: Target | None = None) -> list[VisionTokens]:
        """Run the tower over the tiles of all images."""
        found = []
        for group in self.pictures(images):
            size, grid, pixels = target(group.grid) if target else None, group.grid, group.pixels
            if size is not None:
                patch = self.model.config.vision_config.patch_size
                shrunk = [patch * tokens for tokens in size]
                pixels = nn.functional.interpolate(pixels, shrunk, mode="bicubic", antialias=True)
                grid = replace(grid, height=size[0], width=size[1])
            features, evidence = self._run_tower(pixels, needs, off_size=size is not None)
            whole = partial(_join_tiles, tiles=grid.tiles)
            joined = {need: whole(value) for need, value in evidence.items()}
            cls = features[:, :1].float()
            found.append(VisionTokens(group.members, whole(features[:, 1:]), whole(cls), grid, joined, group.tokens))
        return found

    def _run_tower(
        self, pixels: Tensor, needs: frozenset[Evidence], off_size: bool
    ) -> tuple[Tensor, dict[Evidence, Tensor]]:
        """Features of each picture, CLS first, `(pictures, 1 + n, width)`, and evidence over its n patches.

        Pictures that are `off_size` get interpolated position embeddings.
        """
        tower = self.model.model.vision_tower
        layers = tower.encoder.layers
        outputs = {self.shape.feature_layer, *(n.layer % len(layers) for n in needs if n.kind == "hidden")}
        attended = {n.layer % len(layers) for n in needs if n.kind in ATTENTION_KINDS}
        parts = []
        for chunk in pixels.split(PIXELS_AT_ONCE):
            with watching(layers, outputs, attended) as seen:
                tower(pixel_values=chunk.to(self.device, self.model.dtype), interpolate_pos_encoding=off_size)
                evidence = tower_evidence(layers, seen, needs)
            features = seen.outputs[self.shape.feature_layer]
            for need in needs:
                if need.kind == "projected":
                    evidence[need] = self.project(features[:, 1:]).float()
            parts.append((features, evidence))
        return torch.cat([f for f, _ in parts]), {need: torch.cat([e[need] for _, e in parts]) for need in parts[0][1]}

    def project(self, features: Tensor) -> Tensor:
        """Apply the two-layer MLP."""
        return self.model.model.multi_modal_projector(features)  # type: ignore[no-any-return] # found by attribute


def tile_side(config: Any) -> int:
    """Tokens along each side of a picture that the tower sees at its own size."""
    return int(config.vision_config.image_size // config.vision_config.patch_size)


def _join_tiles(x: Tensor, tiles: int) -> Tensor:
    """Put the tokens of an image's tiles one behind the other: `(images * tiles, n, ...)` to `(images, tiles * n, ...)`."""
    return x.reshape(-1, tiles * x.shape[1], *x.shape[2:])


def _square(image: Image, fill: tuple[int, ...]) -> Image:
    """Centre an image on the smallest square that holds it."""
    side = max(image.size)
    if image.width == image.height:
        return image
    square = Pillow.new("RGB", (side, side), fill)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square
