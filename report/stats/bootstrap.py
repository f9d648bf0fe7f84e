"""The paired bootstrap over images: every image has a random weight, the same for all cells that show it.

Weights are exponential, as in the Bayesian bootstrap, and each cell has half a question answered rightly and half a question
answered wrongly beside its own (Jeffreys' prior), with weights that no other cell has. Of a share of questions this gives
Jeffreys' interval, and of the questions that one row loses a gamma variable of as many events and a half. Both hold where
drawing images with replacement does not: near 0 and 100 %, and where few questions make the difference, or none.

Source: Rubin, The Bayesian Bootstrap (Annals of Statistics 9, 1981); Brown, Cai and DasGupta, Interval Estimation for a Binomial
Proportion (Statistical Science 16, 2001), section 4.3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from vtpbench.report.stats.metrics import FloatArray
from vtpbench.report.stats.sums import Sums, ratios

CHUNK = 4_000_000
"""Weights held in memory at once."""


def replicate(
    names: Sequence[str], cells: Sequence[Sums], replicates: int, same: Mapping[str, str] = MappingProxyType({})
) -> FloatArray:
    """Score every cell under random weights; shape (replicates, cells).

    All cells have the same units. The weights of a unit depend on its name only, those of a cell's prior on the cell's name and
    its units: neither on which other cells are there, nor on their order. An image has one weight in all benchmarks; `same`
    names images that are known by several names, see `same_pictures`.
    """
    units = cells[0].units
    columns, places = _distinct([side for cell in cells for side in (*cell.above.T, *cell.below.T)])
    totals = np.zeros((replicates, columns.shape[1]))
    for chunk, weights in _weights([same.get(unit, unit) for unit in units], replicates):
        totals += weights.T @ columns[chunk]
    ends = np.cumsum([2 * cell.above.shape[1] for cell in cells])
    scores = np.empty((replicates, len(cells)))
    own = hashlib.sha256("\n".join(units).encode()).hexdigest()
    for i, (name, cell, both) in enumerate(zip(names, cells, np.split(totals[:, places], ends[:-1], axis=1), strict=True)):
        above, below = np.split(both, 2, axis=1)
        right, wrong = 0.5 * generator_of(f"{own} {name}").standard_normal((2, *above.shape)) ** 2  # gamma, of shape 1/2
        added, asked = cell.question
        scores[:, i] = cell.scale * ratios(above + right * added, below + (right + wrong) * asked).sum(1)
    return scores


def generator_of(name: str) -> np.random.Generator:
    """Seed a stream of its own by a name."""
    return np.random.Generator(np.random.Philox(key=_key(name)))


def _key(name: str) -> NDArray[np.uint64]:
    return np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], "<u8")


def _weights(units: Sequence[str], replicates: int) -> Iterator[tuple[slice, FloatArray]]:
    """Draw the weights of units, exponential, mean 1; chunks of shape (some units, replicates)."""
    step = max(1, CHUNK // replicates)
    stream = np.random.Philox(key=0)
    generator, state = np.random.Generator(stream), stream.state
    for start in range(0, len(units), step):
        chunk = slice(start, start + step)
        weights = np.empty((len(units[chunk]), replicates))
        for unit, row in zip(units[chunk], weights, strict=True):
            state["state"]["key"] = _key(unit)  # the stream of `generator_of(unit)`, which takes four times as long to make
            stream.state = state
            generator.standard_exponential(out=row)
        yield chunk, weights


def _distinct(columns: Sequence[FloatArray]) -> tuple[FloatArray, list[int]]:
    """Drop equal columns, such as the number of samples per unit that all cells share; and where each one went."""
    known: dict[bytes, int] = {}
    places = [known.setdefault(np.ascontiguousarray(column).tobytes(), len(known)) for column in columns]
    firsts = [places.index(i) for i in range(len(known))]
    return np.stack([columns[i] for i in firsts], axis=1), places
