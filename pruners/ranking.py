"""Order tokens by scores, and gather them, the same on every device and in every batch."""

from __future__ import annotations

import torch
from torch import Tensor

NOWHERE = -2
"""As an index: no token, and not the absence of one either; a choice that holds it is refused."""


def rank(score: Tensor) -> Tensor:
    """Order tokens by descending score, ties by ascending index; `(..., n)` to `(..., n)`."""
    return torch.sort(score.float(), dim=-1, descending=True, stable=True).indices


def top(score: Tensor, k: int) -> Tensor:
    """Choose the `k` best indices of the last dimension, ascending; ties favour the lower index."""
    return rank(score)[..., :k].sort(dim=-1).values


def offset_index(index: Tensor, by: Tensor) -> Tensor:
    """Add to places; what is negative, -1 for a row that has none, stays."""
    return torch.where(index < 0, index, index + by)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Gather rows: `(images, n, ...)` by `(images, k)` to `(images, k, ...)`."""
    shape = index.shape + (1,) * (x.dim() - 2)
    return x.gather(1, index.reshape(shape).expand(*index.shape, *x.shape[2:]))
