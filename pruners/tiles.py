"""Rows of an image's tiles in the order that methods with rows of several kinds give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vtpbench.pruners.base import Selection
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def kind_by_kind(joined: Selection, tiles: int, kinds: Sequence[slice]) -> Selection:
    """Put the base tile first, then the rows of all other tiles kind by kind, so that each kind can be put in order by itself.

    Where nothing is merged there is one kind only, and all stays as it is.

    Parameters
    ----------
    joined : the selections of the tiles, one behind the other
    tiles : how many there are
    kinds : rows of each kind, among those of a tile

    """
    if not joined.merged:
        return joined
    row = torch.arange(joined.k, device=joined.index.device).reshape(tiles, -1)
    order = torch.cat([row[0], *(row[1:, kind].flatten() for kind in kinds)])

    def ordered(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[:, order]

    return Selection(joined.index[:, order], ordered(joined.features), ordered(joined.valid), projected=joined.projected)


def last_rows_behind(joined: Selection, tiles: int) -> Selection:
    """Put the base tile first, then the other tiles without the last row of each, such as a mean, then these last rows."""
    others = joined.k // tiles - 1
    return kind_by_kind(joined, tiles, (slice(others), slice(others, None)))
