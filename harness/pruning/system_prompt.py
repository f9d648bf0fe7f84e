"""What every prompt of a model begins with, the text before the first image, is prefilled once for all of them.

Nothing that stands there sees an image or a question, so that its keys and values are always the same. Batches of prompts that
begin with it are prefilled behind it: its columns come first, then padding, then the rest of each prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from vtpbench.harness.pruning.layout import PromptLayout, Span
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.transfer import copy_to_device

if TYPE_CHECKING:
    from torch import Tensor

    from vtpbench.harness.pruning.model import VisionLanguageModel

QUESTIONS = "Is it?", "How many are there?"
"""What their prompts have in common before the image does not depend on the question."""
LEAST = 8
"""Tokens from which on it is worth a pass, and the columns that padding behind it costs."""


@dataclass(frozen=True, eq=False)
class SystemPrompt:
    """What prompts begin with, behind the decoder.

    Attributes
    ----------
    ids : its tokens
    cached : keys and values of each decoder layer, `(1, key heads, tokens, head dim)`

    """

    ids: tuple[int, ...]
    cached: Sequence[tuple[Tensor, Tensor]]

    def __len__(self) -> int:
        return len(self.ids)

    def opens(self, heads: Sequence[Sequence[int]], layout: PromptLayout) -> bool:
        """Whether all prompts have exactly these tokens before their first image, and an image of which something is left."""
        shown = all(any(span.image is not None for span in row) for row in layout.rows)
        return bool(self.ids) and shown and all(head == self.ids for head in heads)

    @classmethod
    def of(cls, model: VisionLanguageModel) -> SystemPrompt:
        """Find and prefill it; without tokens where prompts have too few in common."""
        from vtpbench.harness.pruning.key_value_cache import buffered  # imports transformers

        one, other = (before_image(model.prompt_ids(question, 1), model.image_id) for question in QUESTIONS)
        if len(one) < LEAST or one != other:
            return cls((), ())
        cache = buffered(model.shape.decoder_layers)
        with torch.inference_mode():
            embeds = model.model.get_input_embeddings()(copy_to_device(torch.tensor([one]), model.device))
            model.states(embeds, model.positions(PromptLayout(((Span(len(one)),),)), ()), None, cache)
            return cls(one, [(layer.keys.clone(), layer.values.clone()) for layer in cache.layers])


def before_image(ids: Sequence[int], image_id: int) -> tuple[int, ...]:
    """Take the tokens of a prompt before its first image."""
    return tuple(takewhile(lambda token: token != image_id, ids))


def prepend_valid(columns: int, flags: Tensor) -> Tensor:
    """Put so many columns that hold a token, and are seen, before flags of others, `(..., width)` bool."""
    return torch.nn.functional.pad(flags, (columns, 0), value=True) if columns else flags
