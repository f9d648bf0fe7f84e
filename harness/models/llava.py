"""LLaVA-1.5: CLIP tower, one tile, an MLP projector, a Llama."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image as Pillow
from PIL.Image import Image
from torch import Tensor, nn

from vtpbench.harness.models.family import PIXELS_AT_ONCE, Family, VisionTokens
from vtpbench.harness.models.tower import tower_evidence, watching
from vtpbench.pruners.base import Evidence, Grid, ModelShape
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


class Llava(Family):
    """`LlavaForConditionalGeneration`, from a checkpoint in Hugging Face form."""

    default_preprocessing = "pad"

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any, chat_template: str, preprocessing: str) -> None:
        self.model, self.tokenizer, self.image_processor = model, tokenizer, image_processor
        self.chat_template, self.preprocessing = chat_template, preprocessing
        self.image_token = tokenizer.convert_ids_to_tokens(model.config.image_token_id)
        self.shape, tokens = self.describe(model.config)
        side = math.isqrt(tokens)
        self.grid = Grid(1, side, side)

    @classmethod
    def describe(cls, config: Any) -> tuple[ModelShape, int]:
        """Shape of a model with this configuration, and the vision tokens of an image."""
        layer, vision, text = config.vision_feature_layer, config.vision_config, config.text_config
        if config.vision_feature_select_strategy != "default" or not isinstance(layer, int) or layer >= 0:
            raise Unsupported("supported are LLaVA checkpoints with one vision layer, counted from the end, without CLS")
        shape = ModelShape(
            family="llava",
            decoder_layers=text.num_hidden_layers,
            decoder_heads=text.num_attention_heads,
            decoder_width=text.hidden_size,
            vision_layers=vision.num_hidden_layers,
            vision_width=vision.hidden_size,
            feature_layer=vision.num_hidden_layers + layer,
            has_cls=True,
            full_attention=tuple(range(vision.num_hidden_layers)),
        )
        return shape, (vision.image_size // vision.patch_size) ** 2

    @classmethod
    def load(cls, path: Path | str, dtype: torch.dtype, device: torch.device, attention: str, preprocessing: str) -> Llava:
        """Load a checkpoint; the caller has verified that it is one."""
        from transformers import AutoImageProcessor, AutoProcessor, LlavaForConditionalGeneration

        model = LlavaForConditionalGeneration.from_pretrained(path, dtype=dtype, attn_implementation=attention)
        processor = AutoProcessor.from_pretrained(path)
        images = AutoImageProcessor.from_pretrained(path, backend="pil")
        template = processor.chat_template or processor.tokenizer.chat_template or VICUNA_V1
        return cls(model.to(device).eval(), processor.tokenizer, images, template, preprocessing)

    @property
    def decoder(self) -> nn.Module:
        """The Llama."""
        return self.model.model.language_model  # type: ignore[no-any-return]  # found by attribute

    def pixels(self, images: Sequence[Image]) -> Tensor:
        """Preprocess: `pad` to a square of the mean colour as the original LLaVA does, or `crop` as the checkpoint says."""
        ready = [image.convert("RGB") for image in images]
        if self.preprocessing == "pad":
            fill = tuple(int(255 * m) for m in self.image_processor.image_mean)
            ready = [_square(image, fill) for image in ready]
        values: Tensor = self.image_processor(ready, return_tensors="pt")["pixel_values"]
        return values.to(self.device, self.model.dtype)

    @torch.inference_mode()
    def encode(self, images: Sequence[Image], needs: frozenset[Evidence]) -> list[VisionTokens]:
        """Run the tower; all images have the same geometry."""
        tower = self.model.model.vision_tower
        layers = tower.encoder.layers
        outputs = {self.shape.feature_layer, *(n.layer % len(layers) for n in needs if n.kind == "hidden")}
        attended = {n.layer % len(layers) for n in needs if n.kind in ("received", "cls", "keys")}
        parts = []
        pixels = self.pixels(images)
        for chunk in pixels.split(PIXELS_AT_ONCE):
            with watching(layers, outputs, attended) as seen:
                tower(pixel_values=chunk)
                evidence = tower_evidence(layers, seen, needs)
            features = seen.outputs[self.shape.feature_layer]
            for need in needs:
                if need.kind == "projected":
                    evidence[need] = self.project(features[:, 1:]).float()
            parts.append((features, evidence))
        features = torch.cat([f for f, _ in parts])
        joined = {need: torch.cat([e[need] for _, e in parts]) for need in parts[0][1]}
        return [VisionTokens(tuple(range(len(images))), features[:, 1:], features[:, :1].float(), self.grid, joined)]

    def project(self, features: Tensor) -> Tensor:
        """Apply the two-layer MLP."""
        return self.model.model.multi_modal_projector(features)  # type: ignore[no-any-return] # found by attribute


def _square(image: Image, fill: tuple[int, ...]) -> Image:
    """Centre an image on the smallest square that holds it."""
    side = max(image.size)
    if image.width == image.height:
        return image
    square = Pillow.new("RGB", (side, side), fill)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square
