"""Order tokens by scores, and gather them, the same on every device and in every batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


NOWHERE = -2
"""As an index: no token, and not the absence of one either; a choice that holds it is refused."""


def rank(score: Tensor) -> Tensor:
    """Order tokens by descending score, ties by ascending index; `(..., n)` to `(..., n)`."""
    return torch.sort(score.float(), dim=-1, descending=True, stable=True).indices


def top(score: Tensor, k: int) -> Tensor:
    """Choose the `k` best indices of the last dimension, ascending; ties favour the lower index."""
    return rank(score)[..., :k].sort(dim=-1).values


def offset_index(index: Tensor, by: Tensor | int) -> Tensor:
    """Add to places; what is negative, -1 for a row that has none, stays."""
    return torch.where(index < 0, index, index + by)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Gather rows: `(images, n, ...)` by `(images, k)` to `(images, k, ...)`."""
    shape = index.shape + (1,) * (x.dim() - 2)
    return x.gather(1, index.reshape(shape).expand(*index.shape, *x.shape[2:]))


def outliers(score: Tensor) -> Tensor:
    """Count the tokens of each image that score more than the third quartile and 1.5 interquartile ranges, `(images, 1)`."""
    ascending, last = score.sort(dim=1).values, score.shape[1] - 1

    def quantile(share: float) -> Tensor:
        """Interpolate between the two nearest."""
        low = int(share * last)
        high = min(low + 1, last)
        return torch.lerp(ascending[:, low : low + 1], ascending[:, high : high + 1], share * last - low)

    first, third = quantile(0.25), quantile(0.75)
    return (score > third + 1.5 * (third - first)).sum(dim=1, keepdim=True)
