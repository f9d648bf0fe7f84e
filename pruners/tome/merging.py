"""Bipartite soft matching: every second row is compared with the others, and the best pairs merge."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vtpbench.pruners.base import TokenView, rank, take


@dataclass(frozen=True)
class Rows:
    """Rows that stand for tokens, `(images, n, ...)`.

    Attributes
    ----------
    features, keys : means over the tokens of a row
    size : how many tokens a row stands for
    first : the first of its tokens, numbered in the order of the image among those that arrived
    group : (images, arrived) row of each token that arrived

    """

    features: Tensor
    keys: Tensor
    size: Tensor
    first: Tensor
    group: Tensor

    @classmethod
    def arriving(cls, view: TokenView, places: Tensor) -> Rows:
        """Begin with what arrives, of which `places` is the order in the image.

        Keys have no width where no evidence was collected, and nothing is to be merged.
        """
        keys = next(iter(view.evidence.values()), view.features[..., :0])
        size = torch.ones_like(view.features[..., 0]) if view.size is None else view.size
        return cls(view.features, keys, size, places.argsort(dim=1), torch.arange(view.n, device=places.device).expand_as(places))

    @property
    def n(self) -> int:
        """Rows of an image."""
        return self.size.shape[1]

    def every_second(self, start: int) -> Rows:
        """Take the odd rows (1) or the even ones (0); `group` is left as it is."""
        part = (slice(None), slice(start, None, 2))
        return Rows(self.features[part], self.keys[part], self.size[part], self.first[part], self.group)

    def at(self, index: Tensor) -> Rows:
        """Take rows `(images, k)`; `group` is left as it is."""
        features, keys, size, first = (take(part, index) for part in (self.features, self.keys, self.size, self.first))
        return Rows(features, keys, size, first, self.group)

    def in_order(self) -> Rows:
        """Order rows by their first token."""
        order = self.first.argsort(dim=1)
        return replace(self.at(order), group=order.argsort(dim=1).gather(1, self.group))


def merge(rows: Rows, count: int) -> Rows:
    """Merge `count` of the odd rows, those most like an even one, into it; the odd rows that stay come first.

    Source: Bolya et al., ICLR 2023, section 3 and appendix D. Sums run over what merges alone, in a fixed order, so that no
    result depends on the device's scheduling.
    """
    odd, even = rows.every_second(1), rows.every_second(0)
    unit = normalize(rows.keys, dim=-1)
    likeness = unit[:, 1::2] @ unit[:, ::2].mT
    best, target = rank(likeness.amax(dim=-1)), likeness.argmax(dim=-1)  # the lowest on ties
    merging, staying = best[:, :count], best[:, count:].sort(dim=1).values
    gone, left, place = odd.at(merging), odd.at(staying), torch.arange(even.n, device=target.device)
    joins = target.gather(1, merging)[:, None] == place[:, None]  # (images, even, merging)
    shares = joins * gone.size[:, None]
    size = even.size + shares.sum(dim=-1)

    def grown(own: Tensor, joining: Tensor) -> Tensor:
        """Average what even rows and those that join them stand for."""
        return (own * even.size[..., None] + shares @ joining) / size[..., None]

    first = torch.where(joins, gone.first[:, None], rows.group.shape[1]).amin(dim=-1)
    return Rows(
        torch.cat([left.features, grown(even.features, gone.features)], dim=1),
        torch.cat([left.keys, grown(even.keys, gone.keys)], dim=1),
        torch.cat([left.size, size], dim=1),
        torch.cat([left.first, torch.minimum(even.first, first)], dim=1),
        _moved(target, staying, even.n).gather(1, rows.group),
    )


def _moved(target: Tensor, staying: Tensor, even: int) -> Tensor:
    """Say where each row goes: odd rows that stay, then even rows, with them what merges; `(images, n)`."""
    left = torch.arange(staying.shape[1], device=target.device).expand_as(staying)
    odd = (left.shape[1] + target).scatter(1, staying, left)
    moved = odd.new_empty(len(odd), odd.shape[1] + even)
    moved[:, 1::2] = odd
    moved[:, ::2] = left.shape[1] + torch.arange(even, device=target.device)
    return moved
