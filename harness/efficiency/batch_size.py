"""The largest batch that a device has the memory for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

LARGEST = 1024
"""More is not tried: small models on a large GPU would never come to an end."""


def largest(fits: Callable[[int], bool], limit: int = LARGEST) -> int:
    """Find the largest batch up to `limit` that fits, 0 where not even one does: double, then bisect."""
    low, high = 0, 1
    while high <= limit and fits(high):
        low, high = high, 2 * high
    if high > limit:
        if low == limit or fits(limit):
            return limit
        high = limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def largest_for_all(rows: Sequence[Callable[[int], bool]], limit: int = LARGEST) -> int:
    """Find the largest batch that fits for every row; put the hungriest first, so that the others are asked once."""
    for fits in rows:
        if limit and not fits(limit):
            limit = largest(fits, limit - 1)
    return limit
