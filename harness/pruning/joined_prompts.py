"""Prompts that come together inside the decoder: up to the first cut a picture is there once for all questions about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class JoinedPrompts:
    """How prompts are put together of rows of questions behind prefixes.

    Attributes
    ----------
    at : layer before which they come together
    prefixes : (rows, prefix columns, dim) of what each row stands behind, before layers `at` - 1 and `at`
    before : columns that are cached before the prefixes
    rows : (prompts,) int64 the row of each prompt
    columns : (prompts, before + longest prompt) int64 its columns among those that the row has cached; padding is column 0

    """

    at: int
    prefixes: Sequence[Tensor]
    before: int
    rows: Tensor
    columns: Tensor

    def states(self, questions: Tensor, of: int) -> Tensor:
        """Put states of questions, `(rows, columns, dim)`, behind number `of` of the prefixes' own, prompt by prompt."""
        columns = (self.columns[:, self.before :] - self.before).clamp(min=0)
        return torch.cat([self.prefixes[of], questions], dim=1)[self.rows[:, None], columns]

    def regroup(self, cache: Any) -> None:
        """Put what the layers before `at` have cached together."""
        from vtpbench.harness.pruning.key_value_cache import regroup  # imports transformers

        regroup(cache.layers[: self.at], self.rows, self.columns)
