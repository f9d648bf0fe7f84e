"""Bipartite soft matching: every second row is compared with the others, and the best pairs merge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from vtpbench.pruners.base import TokenView, rank, take
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Matching:
    """Which of the odd rows merge into which of the even ones; the odd rows that stay come first, then the even ones.

    Attributes
    ----------
    order : (images, odd) odd rows, those that stay before those that merge
    target : (images, odd) even row that each odd row is most like
    joins : (images, even, merging) whether an odd row merges into an even one
    size : (images, n) what rows stand for before

    """

    order: Tensor
    target: Tensor
    joins: Tensor
    size: Tensor

    @classmethod
    def best(cls, keys: Tensor, size: Tensor, count: int) -> Matching:
        """Merge the `count` odd rows that are most like an even one; ties favour the lowest."""
        unit = torch.nn.functional.normalize(keys, dim=-1)
        likeness = unit[:, 1::2] @ unit[:, ::2].mT
        best, target = rank(likeness.amax(dim=-1)), likeness.argmax(dim=-1)
        order = torch.cat([best[:, count:].sort(dim=1).values, best[:, :count]], dim=1)
        even = torch.arange(likeness.shape[2], device=keys.device)
        joins = target.gather(1, best[:, :count])[:, None] == even[:, None]
        return cls(order, target, joins, size)

    @cached_property
    def _sizes_before(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.split(self.size)

    @cached_property
    def _shares(self) -> Tensor:
        """Tokens that merging rows bring to each even row, `(images, even, merging)`."""
        return self.joins * self._sizes_before[1][:, None]

    @cached_property
    def sizes(self) -> Tensor:
        """What rows stand for afterwards."""
        stay, _, even = self._sizes_before
        return torch.cat([stay, even + self._shares.sum(dim=-1)], dim=1)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tell apart the odd rows that stay, those that merge, and the even ones."""
        odd, staying = take(x[:, 1::2], self.order), self.order.shape[1] - self.joins.shape[2]
        return odd[:, :staying], odd[:, staying:], x[:, ::2]

    def mean(self, x: Tensor) -> Tensor:
        """Average rows `(images, n, dim)`, weighted by what they stand for; sums run in a fixed order on any device."""
        stay, gone, even = self.split(x)
        total = torch.baddbmm(even * self._sizes_before[2][..., None], self._shares, gone)
        return torch.cat([stay, total / self.sizes[:, stay.shape[1] :, None]], dim=1)

    def least(self, x: Tensor) -> Tensor:
        """Take the smallest of `(images, n)` integers in each row."""
        stay, gone, even = self.split(x)
        joining = torch.where(self.joins, gone[:, None], torch.iinfo(x.dtype).max).amin(dim=-1)
        return torch.cat([stay, torch.minimum(even, joining)], dim=1)

    def destination(self) -> Tensor:
        """Say in which row each row goes on, `(images, n)`."""
        images, odd = self.order.shape
        staying, even = odd - self.joins.shape[2], self.joins.shape[1]
        place = torch.arange(staying, device=self.order.device).expand(images, -1)
        moved = place.new_empty(images, odd + even)
        moved[:, 1::2] = (staying + self.target).scatter(1, self.order[:, :staying], place)
        moved[:, ::2] = staying + torch.arange(even, device=self.order.device)
        return moved


@dataclass(frozen=True)
class Rows:
    """Rows that stand for tokens, `(images, n, ...)`.

    Attributes
    ----------
    features, keys : means over the tokens of a row
    size : how many tokens a row stands for
    first : the first of its tokens: a number that grows with the place in the image, and tells which arrived
    moves : what was done, one step after the other: each gives the row in which each row goes on, `(images, n)`

    """

    features: Tensor
    keys: Tensor
    size: Tensor
    first: Tensor
    moves: tuple[Callable[[], Tensor], ...] = ()

    @classmethod
    def arriving(cls, view: TokenView) -> Rows:
        """Begin with what arrives. Keys have no width where no evidence was collected, and nothing is to be merged."""
        keys = next(iter(view.evidence.values()), view.features[..., :0])
        size = torch.ones_like(view.features[..., 0]) if view.size is None else view.size
        return cls(view.features, keys, size, view.index * view.n + torch.arange(view.n, device=view.index.device))

    @property
    def n(self) -> int:
        """Rows that an image has now."""
        return self.size.shape[1]

    def in_order(self) -> Rows:
        """Order rows by their first token."""
        order = self.first.argsort(dim=1)
        features, keys, size, first = (take(part, order) for part in (self.features, self.keys, self.size, self.first))
        return Rows(features, keys, size, first, (*self.moves, lambda: order.argsort(dim=1)))

    def group(self) -> Tensor:
        """Find the row of each token that arrived, `(images, arrived)`."""
        steps = [move() for move in self.moves]
        arrived = steps[0].shape[1] if steps else self.n
        found = torch.arange(arrived, device=self.first.device).expand(len(self.first), -1)
        for step in steps:
            found = step.gather(1, found)
        return found


def merge(rows: Rows, count: int, again: bool = False) -> Rows:
    """Merge `count` of the odd rows, those most like an even one, into it; `again` where keys are needed for more of it.

    Source: Bolya et al., ICLR 2023, section 3 and appendix D.
    """
    found = Matching.best(rows.keys, rows.size, count)
    keys = found.mean(rows.keys) if again else rows.keys[:, : rows.n - count, :0]
    return Rows(found.mean(rows.features), keys, found.sizes, found.least(rows.first), (*rows.moves, found.destination))
