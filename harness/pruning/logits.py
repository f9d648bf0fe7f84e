"""What the logits of answers show: whether they are numbers, and where each answer ends."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class FiniteLogits:
    """Notes in every step of `generate` whether each prompt's logits are finite; the device is asked once, in the end.

    Takes the place of a `LogitsProcessor` and changes nothing.
    """

    def __init__(self) -> None:
        self._steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Note one step."""
        del input_ids
        self._steps.append(scores.isfinite().all(dim=-1))
        return scores

    def all_finite(self, lengths: Sequence[int]) -> list[bool]:
        """Say of each prompt whether its first so many steps, those of its answer, were finite; waits for the device."""
        steps = torch.stack(self._steps, dim=1).tolist() if self._steps else [[]] * len(lengths)
        return [all(row[:length]) for row, length in zip(steps, lengths, strict=True)]


def answer_lengths(tokens: Sequence[Sequence[int]], ends: int | Sequence[int] | None) -> tuple[list[int], list[bool]]:
    """Count the tokens of each answer, the one that ends it included, and say which have one.

    Parameters
    ----------
    tokens : generated, padded behind the end of an answer
    ends : tokens that end an answer

    """
    ending = {ends} if isinstance(ends, int) else set(ends or ())
    places = [next((n for n, token in enumerate(row) if token in ending), None) for row in tokens]
    return [len(row) if n is None else n + 1 for n, row in zip(places, tokens, strict=True)], [n is not None for n in places]
