"""Qwen3-VL: features of several tower blocks are added to the first decoder layers (DeepStack)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from vtpbench.harness.models.answer_rule import BLANK_LINE, AnswerRule
from vtpbench.harness.models.dimensions import TowerDimensions
from vtpbench.harness.models.qwen_pictures import PictureRule
from vtpbench.harness.models.qwen_vl import OWN_SETTINGS, QwenVL
from vtpbench.harness.pruning.batch import ImageTokens, PromptBatch
from vtpbench.harness.pruning.schedule import Schedule
from vtpbench.pruners.base import ModelShape, Selection, TokenView, take
from vtpbench.pruners.errors import Unsupported
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class Qwen3VL(QwenVL):
    """`Qwen3VLForConditionalGeneration`: features of several tower blocks enter the first decoder layers.

    A token's features are those that enter the language model and, behind them, those that are added to it behind decoder
    layers 0, 1, ..., one level after the other: `(1 + levels)` times the language model's width. So a cut at depth 0 takes or
    averages all levels alike. A cut inside the language model takes the levels that are still to come along with the tokens; a
    row that is merged there takes those of the token whose place it has.

    By default pictures are those of lmms-eval 0.7.3: of 200,704 to 1,605,632 pixels, what is transparent on white. `dynamic` is
    the checkpoint's own way.
    """

    title = "Qwen3-VL"
    preprocessings = ("lmms_eval", "dynamic")
    rules = MappingProxyType({"lmms_eval": PictureRule(fewest=200704, most=1605632, on_white=True), "dynamic": OWN_SETTINGS})
    system = "You are a helpful assistant."
    answers: ClassVar[AnswerRule] = AnswerRule(max_new_tokens=128, cuts=True, never=frozenset({BLANK_LINE}))
    limits = (64, 16384)
    colours = MappingProxyType({"image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    vision_arguments = ("visual_pos_masks", "deepstack_visual_embeds")

    @staticmethod
    def model_class() -> Any:
        """Class of transformers that holds the weights."""
        from transformers import Qwen3VLForConditionalGeneration

        return Qwen3VLForConditionalGeneration

    @classmethod
    def describe(cls, config: Any, preprocessing: str) -> tuple[ModelShape, None]:
        """Shape of a model with this configuration; the number of vision tokens depends on the image."""
        levels, layers = len(config.vision_config.deepstack_visual_indexes), config.text_config.num_hidden_layers
        if levels >= layers:
            raise Unsupported(f"{cls.title} with features for {levels} of {layers} decoder layers is not supported")
        return super().describe(config, preprocessing)

    @classmethod
    def tower_dimensions(cls, config: Any) -> TowerDimensions:
        """Sizes of the tower; each level of features has a merger of its own."""
        vision = config.vision_config
        plain = cls.plain_tower(vision, vision.hidden_size, vision.intermediate_size, vision.out_hidden_size)
        return replace(plain, mergers=1 + len(vision.deepstack_visual_indexes))

    def merged(self, output: Any) -> Tensor:
        """Join what enters the language model with what is added later, `(units of all images, (1 + levels) * width)`."""
        return torch.cat([output.pooler_output, *output.deepstack_features], dim=-1)

    def choose(self, view: TokenView, schedule: Schedule) -> Selection:
        """Let the pruner choose at depth 0; rows that it gave in the language model's space get the levels of their tokens."""
        chosen = super().choose(view, schedule)
        width = self.shape.decoder_width
        if not chosen.projected or chosen.features is None or chosen.features.shape[-1] != width:
            return chosen
        later = take(view.features[..., width:], chosen.index.clamp(min=0)).masked_fill((chosen.index < 0)[..., None], 0)
        return replace(chosen, features=torch.cat([chosen.features, later.to(chosen.features.dtype)], dim=-1), projected=False)

    def embed_images(self, images: Sequence[ImageTokens]) -> Tensor:
        """Give what enters the language model, `(n, dim)`."""
        return super().embed_images(images)[:, : self.shape.decoder_width]

    def added_rows(self, images: Sequence[ImageTokens]) -> tuple[Tensor, ...]:
        """Give for each image `(levels, k, dim)` what is added behind decoder layers 0, 1, ..."""
        width = self.shape.decoder_width
        return tuple(image.features[:, width:].unflatten(-1, (-1, width)).transpose(0, 1) for image in images if self._levels)

    def stock_arguments(self, batch: PromptBatch, width: int) -> dict[str, Any]:
        """Write `added` as `Qwen3VLTextModel` takes it: which columns are vision tokens, and for each level their rows."""
        if not batch.added:
            return {}
        shown = torch.zeros(len(batch.layout.rows), width, dtype=torch.bool, device=self.device)
        for place in batch.layout.places.values():
            shown[place.row, place.start : place.start + place.length] = True
        return {"visual_pos_masks": shown, "deepstack_visual_embeds": list(torch.cat(batch.added, dim=1))}

    @property
    def _levels(self) -> int:
        return len(self.model.config.vision_config.deepstack_visual_indexes)
