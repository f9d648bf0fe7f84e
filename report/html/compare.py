"""What the page embeds to hold any two rows of a table against each other: differences, and counts of broken and mended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from vtpbench.report.analyses.columns import is_right
from vtpbench.report.html.view import Line, Section
from vtpbench.report.tables.conventions import REPLICATES
from vtpbench.report.tables.layout import clean
from vtpbench.report.tables.table import TableEntry

if TYPE_CHECKING:
    from vtpbench.report.stats.draws import Draws
    from vtpbench.report.stats.metrics import FloatArray
    from vtpbench.report.stats.resampled import ResampledScores, Samples

MOST_PAIRS = 2000
"""Pairs of rows that a page holds of a table; where there are more, those of one block and those with vanilla alone."""


def comparisons(section: Section, read: Samples, replicates: int = REPLICATES) -> dict[str, Any]:
    """Compare every two rows of a table that have samples.

    Returns
    -------
    `rows` : `[id, name]` of each
    `columns`, `falling` : names of the benchmarks, and of those of which less is better
    `pairs` : by the positions `"i j"` of two rows, i < j, for each column and last for Avg, `[difference, low, high, broken,
        mended, n]` of row i less row j: points of relative accuracy and their 95 % interval; questions that row i alone has
        wrong, that it alone has right, that both answered. Counts are of each row's first seed; what is not known is null

    """
    from vtpbench.report.stats.resampled import ResampledScores  # scipy and pandas, only where they are needed
    from vtpbench.report.stats.row_draws import records_of

    placed = [(group.title, line) for group in section.groups for line in group.lines]
    known = [(title, line) for title, line in placed if any(_first(entry, read) is not None for entry in line.row.entries)]
    names = [clean(column) for column in section.table.columns]
    facts = {"columns": names, "falling": sorted(map(clean, section.table.falling))}
    if len(known) < 2:
        return {"rows": [], **facts, "pairs": {}}
    evidence = ResampledScores(records_of(section.table), read, replicates)
    lines = [line for _, line in known]
    columns = [_BenchmarkPairs([line.row.entries[i] for line in lines], read, evidence) for i in range(len(names))]
    pairs = {f"{i} {j}": _pair(columns, i, j) for i, j in _chosen(known)}
    return {"rows": [[line.id, _name(title, line)] for title, line in known], **facts, "pairs": pairs}


class _BenchmarkPairs:
    """The rows of a table on one benchmark."""

    def __init__(self, entries: Sequence[TableEntry], read: Samples, evidence: ResampledScores) -> None:
        self.relative = [entry.relative for entry in entries]
        self.draws = [_draws(entry, evidence) for entry in entries]
        wrong, right = _answers(entries, read)
        self.broken = wrong @ right.T
        """Shape (rows, rows): questions that the first has wrong and the second right."""
        self.answered = (wrong + right) @ (wrong + right).T

    def counts(self, i: int, j: int) -> tuple[int, int, int]:
        return int(self.broken[i, j]), int(self.broken[j, i]), int(self.answered[i, j])


def _pair(columns: Sequence[_BenchmarkPairs], i: int, j: int) -> list[list[float | None] | None]:
    from vtpbench.report.stats.draws import average, difference

    found: list[list[float | None] | None] = []
    gaps: list[float] = []
    draws: list[Draws | None] = []
    for column in columns:
        one, other, mine, theirs = column.relative[i], column.relative[j], column.draws[i], column.draws[j]
        gap = None if one is None or other is None else one - other
        drawn = None if mine is None or theirs is None else difference(mine, theirs)
        found.append([*_numbers(gap, drawn), *column.counts(i, j)])
        if gap is not None:
            gaps.append(gap)
            draws.append(drawn)
    whole = [d for d in draws if d is not None]
    mean = average(whole) if whole and len(whole) == len(draws) else None
    totals = [sum(column.counts(i, j)[k] for column in columns) for k in range(3)]
    return [*found, [*_numbers(fmean(gaps) if gaps else None, mean), *totals]]


def _numbers(gap: float | None, drawn: Draws | None) -> list[float | None]:
    from vtpbench.report.stats.draws import interval

    low, high = (None, None) if gap is None or drawn is None else interval(drawn)
    return [None if value is None else round(value, 1) for value in (gap, low, high)]


def _draws(entry: TableEntry, evidence: ResampledScores) -> Draws | None:
    from vtpbench.report.stats.row_draws import scored
    from vtpbench.report.stats.sums import NoInterval

    try:
        return evidence.relative(scored(entry)) if entry.relative is not None else None
    except NoInterval:
        return None


def _first(entry: TableEntry, read: Samples) -> Any:
    """Per-sample table of an entry's first seed, where it has one."""
    records = sorted((r for r in entry.records if r.score is not None), key=lambda r: r.seed)
    return read(records[0]) if records else None


def _answers(entries: Sequence[TableEntry], read: Samples) -> tuple[FloatArray, FloatArray]:
    """Which questions each row has wrong, and which right, as 1; shape (rows, questions) of both."""
    known: list[dict[str, bool]] = []
    for entry in entries:
        table = _first(entry, read)
        scored = () if table is None else zip(table["sample"], table["score"], strict=True)
        known.append(
            {
                name: bool(is_right(score, entry.records[0].benchmark))
                for name, score in scored
                if score is not None and score == score
            }
        )
    names = {name: k for k, name in enumerate(dict.fromkeys(name for own in known for name in own))}
    found = np.zeros((2, len(entries), len(names)))
    for i, own in enumerate(known):
        for name, right in own.items():
            found[int(right), i, names[name]] = 1
    return found[0], found[1]


def _chosen(known: Sequence[tuple[str, Line]]) -> Iterator[tuple[int, int]]:
    pairs = list(combinations(range(len(known)), 2))
    for i, j in pairs:
        near = known[i][0] == known[j][0] or known[i][1].pruner < 0 or known[j][1].pruner < 0
        if near or len(pairs) <= MOST_PAIRS:
            yield i, j


def _name(title: str, line: Line) -> str:
    label = clean(line.row.label)
    return label if line.pruner < 0 else f"{label} · {title}"
