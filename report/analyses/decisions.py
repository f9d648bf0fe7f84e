"""Decisions about rows: as good as vanilla but for a margin; maybe the best of its block; the average without each benchmark."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import TYPE_CHECKING

from vtpbench.pruners.errors import UserError
from vtpbench.report.tables.conventions import REPLICATES
from vtpbench.report.tables.rounding import average
from vtpbench.report.tables.settings import is_vanilla
from vtpbench.report.tables.table import Table, TableRow

if TYPE_CHECKING:
    from vtpbench.report.stats.margin import Decision
    from vtpbench.report.stats.resampled import Samples
    from vtpbench.report.stats.row_draws import RowDraws


@dataclass(frozen=True)
class DecidedRow:
    """What the questions say of one row; numbers in per cent of vanilla."""

    row: TableRow
    interval: tuple[float, float] | None
    decision: Decision | None
    """Against vanilla; None where there is no interval."""
    may_be_best: bool | None
    """Of its block; None where it has no interval, or fewer benchmarks than others."""
    without: tuple[float | None, ...]
    """Its average without each of the table's columns in turn."""
    why_not: tuple[str, ...] = ()
    """Why there is no interval, benchmark by benchmark."""


@dataclass(frozen=True)
class DecidedTable:
    """A table, decided row by row."""

    table: Table
    margin: float
    blocks: tuple[tuple[str, tuple[DecidedRow, ...]], ...]
    """Title and rows of each block but vanilla's."""
    smallest: float | None
    """Smallest difference between averages that is likely to be seen, as `smallest_difference` has it; None where `questions` is
    None, and where there are too few."""
    questions: int | None
    """Questions of all benchmarks; None where vanilla's scores of single questions are not known."""


def read_margin(text: str) -> float:
    """Read `2%`, `2 %` or `2`: per cent of vanilla.

    Raises
    ------
    UserError
        It is no number between 0 and 100.

    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%?\s*", text)
    margin = float(found[1]) if found else -1.0
    if not (isfinite(margin) and 0 < margin < 100):
        raise UserError(f"--margin {text}: give the per cent of vanilla that may be lost, above 0 and below 100, such as 2%")
    return margin


def decide_tables(
    tables: Sequence[Table], margin: float, samples: Samples, replicates: int = REPLICATES
) -> tuple[DecidedTable, ...]:
    """Decide about all measured rows of tables; `margin` in per cent of vanilla."""
    return tuple(_decided(table, margin, samples, replicates) for table in tables)


def _decided(table: Table, margin: float, samples: Samples, replicates: int) -> DecidedTable:
    from vtpbench.report.stats.resampled import ResampledScores  # scipy and pandas, only where they are needed
    from vtpbench.report.stats.row_draws import records_of, row_draws
    from vtpbench.report.stats.smallest import smallest_difference

    evidence = ResampledScores(records_of(table), samples, replicates)
    blocks = [block for block in table.blocks if not any(map(_is_vanilla, block.rows))]
    judged = [(block.title, [row_draws(row, table.columns, evidence) for row in block.rows]) for block in blocks]
    vanilla = _vanilla(table, samples)
    shares = {column: fmean(scores) for column, scores in vanilla.items()}
    decided = tuple((title, tuple(_rows(rows, table.columns, margin, shares))) for title, rows in judged)
    known = list(vanilla.values()) if vanilla.keys() == {*table.columns} else []
    smallest = smallest_difference([*map(len, known)], [*map(fmean, known)]) if known else None
    return DecidedTable(table, margin, decided, smallest, sum(map(len, known)) or None)


def _rows(rows: Sequence[RowDraws], columns: Sequence[str], margin: float, shares: Mapping[str, float]) -> Iterator[DecidedRow]:
    from vtpbench.report.stats.draws import interval
    from vtpbench.report.stats.margin import decide, unseen_loss
    from vtpbench.report.stats.max_t import may_be_best
    from vtpbench.report.stats.row_draws import complete

    rivals = complete(rows)
    for judged in rows:
        mean = judged.average
        units = {column: judged.draws[column].units for column in judged.draws}
        unseen = 0.0 if mean is None else unseen_loss([*units.values()], [shares[column] for column in units])
        others = [gap for other in rivals if other is not judged and (gap := other.minus(judged)) is not None]
        yield DecidedRow(
            judged.row,
            None if mean is None else interval(mean),
            None if mean is None else decide(mean, margin, unseen),
            may_be_best(others) if judged in rivals else None,
            tuple(_without(judged.row, i) for i in range(len(columns))),
            judged.why_not,
        )


def _without(row: TableRow, column: int) -> float | None:
    """Average without one column; None where the row has no accuracy there, or nowhere else."""
    if row.entries[column].relative is None:
        return None
    return average([entry.relative for i, entry in enumerate(row.entries) if i != column])[0]


def _vanilla(table: Table, samples: Samples) -> dict[str, list[float]]:
    """Read vanilla's scores of single questions by benchmark, where they are known and not all 0."""
    found: dict[str, list[float]] = {}
    records = [r for block in table.blocks for row in block.rows for e in row.entries for r in e.records]
    for record in (r for r in records if is_vanilla(r) and r.score is not None):
        frame = samples(record)
        scores = [] if frame is None else [float(score) for score in frame["score"].dropna()]
        if scores and fmean(scores) > 0:
            found.setdefault(record.benchmark.label, scores)
    return found


def _is_vanilla(row: TableRow) -> bool:
    return any(is_vanilla(record) for entry in row.entries for record in entry.records)
