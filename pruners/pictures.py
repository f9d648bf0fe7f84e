"""Rectangles of tokens that differ in size, each as an image of its own: what pruners see that act tile by tile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vtpbench.pruners.geometry import Cut, Grid
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.ranking import NOWHERE, offset_index

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from vtpbench.pruners.base import Selection, TokenView


def by_picture(view: TokenView) -> list[TokenView]:
    """Make every rectangle of `Grid.pictures` an image of its own with a share of `keep` by its size; only at depth 0.

    `index` is the rectangle's. Its tokens are not those of a tile of the tower, so that it has no CLS.
    """
    parts: list[TokenView] = []
    start, given = 0, 0
    for number, (rows, columns) in enumerate(view.grid.pictures):
        end = start + rows * columns
        part, due = slice(start, end), end * view.cut.keep // view.n
        parts.append(
            replace(
                view,
                cut=Cut(view.cut.at, due - given),
                features=view.features[:, part],
                index=offset_index(view.index[:, part], -start),
                grid=Grid(1, rows, columns),
                keys=tuple(f"{key}/{number}" for key in view.keys),
                evidence={name: value[:, part] for name, value in view.evidence.items()},
                cls=None,
            )
        )
        start, given = end, due
    return parts


def join_pictures(view: TokenView, reduce: Callable[[TokenView], Selection]) -> Selection:
    """Let a pruner choose in every rectangle that has a share, and put the selections one behind the other."""
    parts = by_picture(view)
    chosen = [(start, part, reduce(part)) for start, part in zip(_starts(parts), parts, strict=True) if part.cut.keep]
    kept = [keep for _, _, keep in chosen]
    return replace(
        kept[0],
        index=torch.cat([_of_image(keep.index, part, start) for start, part, keep in chosen], dim=1),
        features=_joined([keep.features for keep in kept]),
        valid=_joined([keep.valid for keep in kept]),
        size=None,
    )


def order_pictures(view: TokenView, order: Callable[[TokenView], Tensor]) -> Tensor:
    """Put the tokens of every rectangle in order, as many as its share: `(images, keep)`, places in the rectangle."""
    return torch.cat([order(part) for part in by_picture(view) if part.cut.keep], dim=1)


def first_of_pictures(order: Tensor, view: TokenView) -> Tensor:
    """Take the first of every rectangle from what `order_pictures` gave for the budget of `view` or a larger one, ascending."""
    larger, parts = by_picture(replace(view, cut=Cut(view.cut.at, order.shape[1]))), by_picture(view)
    orders = order.split([part.cut.keep for part in larger], dim=1)
    first = [one[:, : part.cut.keep].sort(dim=1).values for one, part in zip(orders, parts, strict=True)]
    return torch.cat([_of_image(*of) for of in zip(first, parts, _starts(parts), strict=True)], dim=1)


def join_segments(view: TokenView, segments: Callable[[TokenView], Tensor | None]) -> Tensor | None:
    """Ask for the groups of every rectangle that has a share, each with numbers of its own; those of others are -1."""
    found: list[Tensor] = []
    first = 0
    for part in by_picture(view):
        groups = segments(part) if part.cut.keep else torch.full_like(part.index, -1 - first)
        if groups is None:
            return None
        found.append(groups + first)
        first += part.cut.keep
    return torch.cat(found, dim=1)


def _starts(parts: Sequence[TokenView]) -> list[int]:
    return [sum(part.n for part in parts[:number]) for number in range(len(parts))]


def _of_image(index: Tensor, part: TokenView, start: int) -> Tensor:
    """Name the image's tokens for those of a rectangle; what would be another rectangle's is `NOWHERE`."""
    return offset_index(torch.where(index < part.n, index, NOWHERE), start)


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    given = [part for part in parts if part is not None]
    return torch.cat(given, dim=1) if given else None
