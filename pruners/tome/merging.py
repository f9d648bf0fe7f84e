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
    def arriving(cls, view: TokenView) -> Rows:
        """Begin with what arrives; keys of no width where no evidence was collected, and nothing is to be merged."""
        keys = next(iter(view.evidence.values()), view.features[..., :0])
        size = torch.ones_like(view.features[..., 0]) if view.size is None else view.size
        first = view.index.argsort(dim=1).argsort(dim=1)
        return cls(view.features, keys, size, first, torch.arange(view.n, device=first.device).expand_as(first))

    @property
    def n(self) -> int:
        """Rows of an image."""
        return self.size.shape[1]

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All that rows have."""
        return self.features, self.keys, self.size, self.first

    def at(self, index: Tensor) -> Rows:
        """Take rows `(images, k)`; `group` is left as it is."""
        features, keys, size, first = (take(part, index) for part in self.parts)
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
    place = torch.arange(rows.n, device=rows.size.device).expand_as(rows.first)
    odd, even = rows.at(place[:, 1::2]), rows.at(place[:, ::2])
    likeness = normalize(odd.keys, dim=-1) @ normalize(even.keys, dim=-1).mT
    best, target = rank(likeness.amax(dim=-1)), likeness.argmax(dim=-1)  # the lowest on ties
    merging, staying = best[:, :count], best[:, count:].sort(dim=1).values
    gone, left = odd.at(merging), odd.at(staying)
    joins = target.gather(1, merging)[:, None] == place[:, : even.n, None]  # (images, even, merging)
    size = even.size + (joins * gone.size[:, None]).sum(dim=-1)

    def mean(own: Tensor, joining: Tensor) -> Tensor:
        total = own * even.size[..., None] + joins.to(own.dtype) @ (joining * gone.size[..., None])
        return total / size[..., None]

    first = gone.first[:, None].expand_as(joins).masked_fill(~joins, rows.group.shape[1]).amin(dim=-1)
    features, keys = mean(even.features, gone.features), mean(even.keys, gone.keys)
    grown = Rows(features, keys, size, torch.minimum(even.first, first), even.group)
    # where each row goes: odd rows that stay, then even rows, with them what merges
    moved = torch.empty_like(place)
    moved[:, ::2] = left.n + place[:, : even.n]
    moved[:, 1::2] = (left.n + target).scatter(1, staying, place[:, : left.n])
    features, keys, size, first = (torch.cat(pair, dim=1) for pair in zip(left.parts, grown.parts, strict=True))
    return Rows(features, keys, size, first, moved.gather(1, rows.group))
