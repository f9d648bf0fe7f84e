"""First and second place of each column of a block, for tables that set them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from vtpbench.report.tables.rounding import paper
from vtpbench.report.tables.table import Block

Place = Literal[0, 1, 2]
"""0 = neither first nor second."""


def places(block: Block) -> list[tuple[tuple[Place, ...], Place]]:
    """Place of each row on each benchmark, and by its average.

    First is the highest relative accuracy and what cannot be told apart from it where there are intervals; second the highest of
    the others. Numbers that print alike share a place. Averages over fewer benchmarks than others compete with none.
    """
    rows = block.rows
    most = max((row.n for row in rows), default=0)
    averages = ranked([row.average if row.n == most else None for row in rows], [row.tied for row in rows])
    columns = [
        ranked([entry.relative for entry in entries], [entry.tied for entry in entries])
        for entries in zip(*(row.entries for row in rows), strict=True)
    ]
    return [(tuple(column[i] for column in columns), averages[i]) for i in range(len(rows))]


def ranked(values: Sequence[float | None], tied: Sequence[bool]) -> list[Place]:
    """Place of each value, the highest first; `tied` are those that cannot be told apart from it. A value alone has none."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return [0] * len(values)
    highest = paper(max(known))
    first = [value is not None and (tie or paper(value) == highest) for value, tie in zip(values, tied, strict=True)]
    others = [value for value, is_first in zip(values, first, strict=True) if value is not None and not is_first]
    next_ = paper(max(others)) if others else ""
    return [1 if f else 2 if v is not None and paper(v) == next_ else 0 for v, f in zip(values, first, strict=True)]
