"""Qwen2-VL: a tower without windows, asked as lmms-eval's `qwen2_vl` asks it."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, ClassVar

from vtpbench.harness.models.answer_rule import AnswerRule
from vtpbench.harness.models.dimensions import TowerDimensions
from vtpbench.harness.models.qwen_pictures import PictureRule
from vtpbench.harness.models.qwen_vl import OWN_SETTINGS, QwenVL


class Qwen2VL(QwenVL):
    """`Qwen2VLForConditionalGeneration`: a tower without windows.

    By default pictures are those of lmms-eval 0.7.3: written as JPEG files of quality 85, and of 3136 to 602,112 pixels, at
    most 768 tokens. `dynamic` is the checkpoint's own way.
    """

    title = "Qwen2-VL"
    preprocessings = ("lmms_eval", "dynamic")
    rules = MappingProxyType({"lmms_eval": PictureRule(fewest=3136, most=602112, jpeg=85), "dynamic": OWN_SETTINGS})
    system = "You are a helpful assistant."
    answers: ClassVar[AnswerRule] = AnswerRule(max_new_tokens=128, cuts=True, strips=True)

    @staticmethod
    def model_class() -> Any:
        """Class of transformers that holds the weights."""
        from transformers import Qwen2VLForConditionalGeneration

        return Qwen2VLForConditionalGeneration

    @classmethod
    def tower_dimensions(cls, config: Any) -> TowerDimensions:
        """Sizes of the tower; what its configuration calls `hidden_size` is the language model's width."""
        vision = config.vision_config
        return cls.plain_tower(vision, vision.embed_dim, int(vision.embed_dim * vision.mlp_ratio), vision.hidden_size)
