"""Average pooling: the floor for methods that merge tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from vtpbench.pruners.base import Keep, Pruner, TokenView, take
from vtpbench.pruners.cells import cells


@dataclass(frozen=True)
class Pool(Pruner):
    """Divide each tile into as many cells as tokens may stay, and replace each cell by the mean of its features.

    The mean stands at the place of the cell's centre. It is taken of what arrives: before the projector in LLaVA, which is
    not the same as after it.

    Source: baseline of the field; the division is this project's, so that the count is exact for every budget.
    """

    source: ClassVar[str] = "baseline"
    scope: ClassVar = "tile"

    def reduce(self, view: TokenView) -> Keep:
        """Average each cell; a sum of its own per cell, so the result does not depend on the batch."""
        division = cells(view.cut.keep, view.grid.height, view.grid.width)
        device, images = view.features.device, len(view.features)
        members = [cell.members for cell in division]
        largest = max(map(len, members))
        weights = torch.tensor([[1 / len(ids)] * len(ids) + [0.0] * (largest - len(ids)) for ids in members], device=device)
        padded = torch.tensor([ids + ids[:1] * (largest - len(ids)) for ids in members], device=device)
        rows = take(view.features, padded.flatten().repeat(images, 1)).reshape(images, *padded.shape, -1)
        index = torch.tensor([cell.centre for cell in division], device=device).repeat(images, 1)
        return Keep(index, (rows * weights[..., None]).sum(dim=2))
