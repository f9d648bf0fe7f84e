"""PruMerge+: PruMerge with centres spread over the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vtpbench.pruners.base import rank
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.prumerge import PruMerge
from vtpbench.pruners.ranking import outliers

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PruMergePlus(PruMerge):
    """PruMerge with centres spread over the image: a quarter by attention, the others evenly over what is left.

    Of the tokens by attention there is at least one. `count: outliers` takes all outliers, at least one, and a grid three
    times as dense over the rows of the tile, its step n / outliers / 3, rounded down each time, or the budget's choice where
    that is fewer.

    Source: as PruMerge, section on PruMerge+; the authors' code for inference. Departures beside PruMerge's: the grid of an
    exact count covers the whole tile; an image without outliers has one, and a step is at least 1, where the code fails.
    """

    def _centres(self, attention: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Choose up to `k` centres, and number tokens in the authors' order; `(images, n)` both."""
        n, order, most = attention.shape[1], rank(attention), min(k, max(1, round(k / 4)))
        place, ids = order.argsort(dim=1), torch.arange(attention.shape[1], device=attention.device)
        rest, spread = order[:, most:].sort(dim=1).values, torch.arange(k - most, device=attention.device)
        grid = rest[:, (2 * spread + 1) * (n - most) // max(1, 2 * (k - most))]
        chosen = torch.zeros_like(place, dtype=torch.bool).scatter(1, torch.cat([order[:, :most], grid], dim=1), True)
        turn = torch.where(place < most, place, n + ids)
        if not self.adaptive:
            return chosen, turn
        found = outliers(attention).clamp(min=1)
        own = (place < found) | (ids % (n // found // 3).clamp(min=1) == 0) & (ids < n - 1)
        fits = own.sum(dim=1, keepdim=True) <= k
        return torch.where(fits, own, chosen), torch.where(fits, torch.where(place < found, place, n + ids), turn)
