"""Share a budget out among parts of an image, to the token, where each part has only so many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def share_out(quota: Tensor, most: Tensor, priority: Tensor, total: int) -> Tensor:
    """Round shares to tokens: first give what rounding down has left, then what some parts cannot take.

    Both go out one token each, in the order of the parts' priority: the first at most once to each part, the second round
    after round to parts that are not full. Where all parts are full, the rest is given to nobody.

    Parameters
    ----------
    quota : (images, parts) int64; the shares, rounded down; may be more than a part can take
    most : (parts,) int64; tokens of each part
    priority : (images, parts) int64; numbers of the parts, the first to be served first
    total : tokens of all parts together

    """
    left = total - quota.sum(dim=1, keepdim=True)
    given = torch.minimum(quota + (priority.argsort(dim=1) < left), most)
    room = (most - given).gather(1, priority)
    seats = torch.arange(total, device=quota.device)[:, None] < room[:, None]  # (images, rounds, parts in order)
    due = total - given.sum(dim=1)
    served = seats & (seats.flatten(1).cumsum(dim=1).view_as(seats) <= due[:, None, None])
    return given.scatter_add(1, priority, served.sum(dim=1))


def best_of_each(score: Tensor, quota: Tensor) -> Tensor:
    """Mark the `quota` best of each part, `(images, parts, n)` bool; ties to the lower index.

    `score` is `(images, parts, n)`, `quota` `(images, parts)`.
    """
    order = torch.sort(score, dim=-1, descending=True, stable=True).indices
    return order.argsort(dim=-1) < quota[..., None]
