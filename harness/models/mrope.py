"""Positions on three axes, time, height and width, as Qwen-VL models have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vtpbench.harness.pruning.batch import ImageTokens
from vtpbench.harness.pruning.layout import PromptLayout, Span
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def mrope_positions(layout: PromptLayout, images: Sequence[ImageTokens], device: torch.device) -> Tensor:
    """Positions in the full prompt, `(3, rows, width)` int64.

    A token of an image stands at its row and column behind the text before the image, and text goes on behind the
    image's longer side. A row that continues no token stands where its image begins. Padding has position 0.
    """
    positions = torch.zeros(3, len(layout.rows), layout.width, dtype=torch.int64, device=device)
    for r, row in enumerate(layout.rows):
        column, start = layout.width - layout.lengths[r], 0
        for part in row:
            place, length = _places(part, images, device)
            positions[:, r, column : column + part.length] = start + place
            column, start = column + part.length, start + length
    return positions


def _places(part: Span, images: Sequence[ImageTokens], device: torch.device) -> tuple[Tensor, int]:
    """Positions of a part's tokens, counted from its beginning, and by how much it moves what follows."""
    if part.image is None:
        return torch.arange(part.length, device=device), part.length
    index, grid = images[part.image].index.clamp(min=0), images[part.image].grid
    axes = [torch.zeros_like(index), index // grid.width, index % grid.width]
    return torch.stack(axes), max(grid.height, grid.width)
