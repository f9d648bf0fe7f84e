"""What VScan does behind the vision tower: the best of each window, and the rest merged into what stays."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from vtpbench.pruners.base import rank, take
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.transfer import copy_to_device

if TYPE_CHECKING:
    from torch import Tensor


def choose_local(score: Tensor, height: int, width: int, wanted: int, *, equally: bool) -> Tensor:
    """Choose at most `wanted` tokens of a tile, the best of each window, `(images, k)`; see `VScan` for `equally`."""
    window, columns = windows(height, width, wanted, equally, score.device)
    order = rank(score)
    by_window = order.gather(1, window[order].argsort(dim=1, stable=True))
    best = by_window[:, columns]
    if equally:
        return best
    best = best.sort(dim=1).values  # so that ties go to the lower index
    return best.gather(1, rank(score.gather(1, best))[:, :wanted])


@lru_cache(maxsize=64)
def windows(height: int, width: int, wanted: int, equally: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """Find each token's window, `(n,)`, and, with tokens sorted by window, the places of those that a window may give."""
    sides = []
    for side in (height, width):
        token = torch.arange(side)
        sides.append((4 * token + 3) // side if equally else (token // 4).clamp(max=max(1, side // 4) - 1))
    down, across = (4, 4) if equally else (max(1, height // 4), max(1, width // 4))
    window = (sides[0][:, None] * across + sides[1]).flatten()
    most = wanted // (down * across) if equally else -(-wanted // (down * across))
    size = window.bincount()
    place = torch.arange(len(window)) - (size.cumsum(0) - size)[window.sort().values]
    return copy_to_device(window, device), copy_to_device((place < most).nonzero().flatten(), device)


def merge_into(index: Tensor, rows: Tensor) -> Tensor:
    """Let every row that does not stay join the most similar one that does: means, `(images, k, dim)`."""
    unit, own = torch.nn.functional.normalize(rows, dim=-1), torch.arange(index.shape[1], device=index.device)
    nearest = (unit @ take(unit, index).mT).argmax(dim=-1)  # the lowest on ties
    nearest = nearest.scatter(1, index, own.expand_as(index))
    joins = (nearest[..., None] == own).float()
    return joins.mT @ rows / joins.sum(dim=1)[..., None]
