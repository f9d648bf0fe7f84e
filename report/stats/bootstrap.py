"""The paired cluster bootstrap: units are drawn with replacement, the same draw for all cells of a benchmark."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from vtpbench.report.stats.metrics import FloatArray
from vtpbench.report.stats.sums import Sums, ratios

CHUNK = 4_000_000
"""Draws held in memory at once."""


def replicate(cells: Sequence[Sums], replicates: int) -> FloatArray:
    """Score every cell on resampled units; shape (replicates, cells).

    All cells have the same units. Draws depend on the names of the units only: neither on which cells are there, nor on
    their order; benchmarks on the same images are therefore resampled together, others independently.
    """
    units = cells[0].units
    columns, places = _distinct([side for cell in cells for side in (*cell.above.T, *cell.below.T)])
    ends = np.cumsum([2 * cell.above.shape[1] for cell in cells])
    scores = np.empty((replicates, len(cells)))
    done = 0
    for weights in _weights(units, replicates):
        totals = (weights @ columns)[:, places]
        for i, (cell, both) in enumerate(zip(cells, np.split(totals, ends[:-1], axis=1), strict=True)):
            above, below = np.split(both, 2, axis=1)
            scores[done : done + len(weights), i] = cell.scale * ratios(above, below).sum(1)
        done += len(weights)
    return scores


def _weights(units: Sequence[str], replicates: int) -> Iterator[FloatArray]:
    """How often each unit was drawn, multinomial; chunks of shape (some replicates, units)."""
    n = len(units)
    seed = hashlib.sha256("\n".join(units).encode()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(seed, "big")))
    step = max(1, CHUNK // n)
    for start in range(0, replicates, step):
        rows = min(step, replicates - start)
        draws = generator.integers(n, size=(rows, n), dtype=np.int32)
        flat = (draws + np.arange(rows)[:, None] * n).ravel()  # one bincount for all replicates
        yield np.bincount(flat, minlength=rows * n).reshape(rows, n).astype(np.float64)


def _distinct(columns: Sequence[FloatArray]) -> tuple[FloatArray, list[int]]:
    """Drop equal columns, such as the number of samples per unit that all cells share; and where each one went."""
    known: dict[bytes, int] = {}
    places = [known.setdefault(np.ascontiguousarray(column).tobytes(), len(known)) for column in columns]
    firsts = [places.index(i) for i in range(len(known))]
    return np.stack([columns[i] for i in firsts], axis=1), places
