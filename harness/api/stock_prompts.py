"""Prompts as the stock model gets them: as many places for an image as it has tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from vtpbench.harness.pruning.model import VisionLanguageModel
from vtpbench.pruners.errors import Unsupported, UserError

QUESTION = "QUESTION"
"""Put into a template to see where a question stands in it."""


@dataclass(frozen=True)
class StockPrompts:
    """The prompts of one call.

    Attributes
    ----------
    rows : token ids, padding left out
    image_id : the token that stands for each vision token
    image_sizes : `(images, 2)` height and width in pixels, where the model was told
    encoded : tokens of each image, where the model was given them as features one by one

    """

    rows: tuple[tuple[int, ...], ...]
    image_id: int
    image_sizes: Tensor | None
    encoded: tuple[int, ...] | None = None

    @property
    def has_images(self) -> bool:
        """Whether any prompt has a place for a vision token."""
        return any(self.image_id in row for row in self.rows)

    def runs(self) -> list[int]:
        """Count the places of each run of them, over all prompts: of each image, where text stands between them."""
        return [len(list(run)) for row in self.rows for token, run in groupby(row) if token == self.image_id]

    def per_image(self) -> Sequence[int]:
        """Count the tokens of each image: as it was encoded or, where that is not known, of each run of places."""
        return self.runs() if self.encoded is None else self.encoded

    def named(self, counts: Sequence[int]) -> list[list[int]]:
        """Write the prompts with one `image_id` for each image, of which the vision tower saw so many tokens each.

        Raises `UserError` where these are not the images that the prompts have places for.
        """
        coming, rows = iter(counts), []
        for row in self.rows:
            named, at = list[int](), 0
            while at < len(row):
                count = next(coming, 0) if row[at] == self.image_id else 1
                if count == 0 or row[at : at + count] != (row[at],) * count:
                    raise self._mismatch(len(counts))
                named.append(row[at])
                at += count
            rows.append(named)
        if next(coming, None) is not None:
            raise self._mismatch(len(counts))
        return rows

    def _mismatch(self, images: int) -> UserError:
        places = sum(self.runs())
        return UserError(
            f"the prompts have {places} places for vision tokens, which are not those of the {images} images that were encoded; "
            "beam search and several answers to a prompt (num_beams, num_return_sequences) cannot be pruned: ask for one answer"
        )

    def questions(self, named: Sequence[Sequence[int]], model: VisionLanguageModel) -> list[str]:
        """Decode for each image what its prompt asks; `named` as the method of this name gives it.

        That is what stands in the place of the question in the model's template, or all text of a prompt that is not made by it.
        """
        found = []
        for row in named:
            images, text = sum(token == self.image_id for token in row), self._text(row, model)
            made = self._text(model.token_ids(model.render(QUESTION, images)), model) if model.chat_template else ""
            before, _, behind = made.partition(QUESTION)
            if text.startswith(before) and text.endswith(behind):
                text = text[len(before) : len(text) - len(behind)]
            found += [text.strip()] * images
        return found

    def _text(self, row: Sequence[int], model: VisionLanguageModel) -> str:
        return str(model.tokenizer.decode([token for token in row if token != self.image_id], skip_special_tokens=True))


def read_prompts(call: Mapping[str, Any], config: Any) -> StockPrompts | None:
    """Read the prompts that a model is called with; None where it is given no ids. Raises `Unsupported` for videos."""
    ids, mask = call.get("input_ids"), call.get("attention_mask")
    if ids is None:
        return None
    real = mask if isinstance(mask, Tensor) and mask.shape == ids.shape else torch.ones_like(ids)
    rows = tuple(tuple(row[flags].tolist()) for row, flags in zip(ids, real.bool(), strict=True))
    video = getattr(config, "video_token_id", None)
    if video is not None and any(video in row for row in rows):
        raise Unsupported("videos cannot be pruned; give images")
    features = getattr((call.get("mm_encoder_outputs") or {}).get("image"), "pooler_output", None)
    encoded = tuple(map(len, features)) if isinstance(features, (list, tuple)) else None
    return StockPrompts(rows, config.image_token_id, call.get("image_sizes"), encoded)
