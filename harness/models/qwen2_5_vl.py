"""Qwen2.5-VL: a tower most of whose blocks look at windows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from vtpbench.harness.models.answer_rule import BLANK_LINE, AnswerRule
from vtpbench.harness.models.dimensions import TowerDimensions
from vtpbench.harness.models.qwen_attention import window_order
from vtpbench.harness.models.qwen_vl import QwenVL
from vtpbench.pruners.base import Grid

if TYPE_CHECKING:
    from torch import Tensor


class Qwen25VL(QwenVL):
    """`Qwen2_5_VLForConditionalGeneration`: a tower most of whose blocks look at windows."""

    title = "Qwen2.5-VL"
    answers: ClassVar[AnswerRule] = AnswerRule(max_new_tokens=32768, cuts=True, never=frozenset({BLANK_LINE}))

    @staticmethod
    def model_class() -> Any:
        """Class of transformers that holds the weights."""
        from transformers import Qwen2_5_VLForConditionalGeneration

        return Qwen2_5_VLForConditionalGeneration

    @classmethod
    def full_attention(cls, vision: Any) -> tuple[int, ...]:
        """Blocks without windows."""
        return tuple(vision.fullatt_block_indexes)

    @classmethod
    def tower_dimensions(cls, config: Any) -> TowerDimensions:
        """Sizes of the tower, whose MLPs are gated."""
        vision = config.vision_config
        plain = cls.plain_tower(vision, vision.hidden_size, vision.intermediate_size, vision.out_hidden_size)
        window = vision.window_size // (vision.patch_size * vision.spatial_merge_size)
        return replace(plain, matrices=3, window=window, full=len(vision.fullatt_block_indexes))

    def unit_order(self, grid: Grid) -> Tensor:
        """Units in the order of the windows."""
        vision = self.model.config.vision_config
        return window_order(grid.height, grid.width, vision.window_size // self._unit, self.device)
