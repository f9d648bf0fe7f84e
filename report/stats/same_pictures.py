"""Pictures that several benchmarks show under different bytes, found by their perceptual hashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

ALIKE = 3
"""Bits of 64 in which the hashes of one photograph differ at most, once it is scaled and compressed anew."""
BANDS = ALIKE + 1
"""Parts of a hash: two that differ in no more than `ALIKE` bits are equal in one of them."""
MOST = 50
"""Pictures of a benchmark that may have a part in common; what more have, as a blank margin gives it, tells nothing."""


def same_pictures(benchmarks: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Name pictures of different benchmarks that are the same by one name; those that are not among them keep their own.

    Two are the same where each is the only one of its benchmark that is like the other: of scenes or pages that all look alike,
    none is taken for another. Pictures of one benchmark are never joined.

    Parameters
    ----------
    benchmarks : of each, the perceptual hashes of its pictures by their names, 16 hexadecimal digits; an empty one is unknown

    """
    joined: dict[str, str] = {}

    def first(name: str) -> str:
        while name in joined:
            name = joined[name]
        return name

    known = [{name: int(text, 16) for name, text in own.items() if text} for own in benchmarks]
    for one, other in combinations(known, 2):
        for pair in _alike(one, other):
            kept, dropped = sorted(map(first, pair))
            if kept != dropped:
                joined[dropped] = kept
    return {name: first(name) for name in joined}


def _alike(one: Mapping[str, int], other: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Find the pictures that have one alike in the other benchmark, and are its only one."""
    mine, theirs = list(one), list(other)
    pairs = _close(np.array([*one.values()], np.uint64), np.array([*other.values()], np.uint64))
    often_mine, often_theirs = Counter(i for i, _ in pairs), Counter(j for _, j in pairs)
    for i, j in sorted(pairs):
        if often_mine[i] == often_theirs[j] == 1 and mine[i] != theirs[j]:
            yield mine[i], theirs[j]


def _close(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> set[tuple[int, int]]:
    """Positions of hashes that differ in few bits."""
    width = np.uint64(64 // BANDS)
    found: set[tuple[int, int]] = set()
    for band in range(BANDS):
        parts = [(hashes >> (width * np.uint64(band))) & np.uint64((1 << int(width)) - 1) for hashes in (one, other)]
        i, j = _equal(*parts)
        bits = np.unpackbits((one[i] ^ other[j]).view(np.uint8)).reshape(-1, 64).sum(1)
        found.update(zip(i[bits <= ALIKE].tolist(), j[bits <= ALIKE].tolist(), strict=True))
    return found


def _equal(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of equal values, all pairs of them."""
    order = np.argsort(other, kind="stable")
    start, stop = (np.searchsorted(other[order], one, side) for side in ("left", "right"))
    _, which, often = np.unique(one, return_inverse=True, return_counts=True)
    count = np.where((stop - start <= MOST) & (often[which] <= MOST), stop - start, 0)
    i = np.repeat(np.arange(len(one)), count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return i, order[np.repeat(start, count) + within]
