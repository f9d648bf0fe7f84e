"""A row of a table with the replicates behind its numbers: what tests and decisions look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vtpbench.harness.records.record import Record
from vtpbench.report.stats.draws import Draws, average, difference
from vtpbench.report.stats.max_t import step_down
from vtpbench.report.stats.resampled import ResampledScores
from vtpbench.report.stats.sums import NoInterval
from vtpbench.report.tables.settings import is_vanilla
from vtpbench.report.tables.table import Table, TableEntry, TableRow


@dataclass(frozen=True)
class RowDraws:
    """A row, and the replicates of its relative accuracies by column, per cent."""

    row: TableRow
    draws: Mapping[str, Draws]
    columns: frozenset[str]
    """Benchmarks in its average."""
    why_not: tuple[str, ...] = ()
    """Of which benchmarks there are no replicates, and why."""

    @property
    def average(self) -> Draws | None:
        """Replicates of the average; None where any of its benchmarks has none."""
        return self.over(self.columns)

    def over(self, columns: Iterable[str]) -> Draws | None:
        """Replicates of the average over some of the columns; None where any of them has none."""
        chosen = sorted(columns)
        return average([self.draws[c] for c in chosen]) if chosen and self.draws.keys() >= {*chosen} else None

    def minus(self, other: RowDraws) -> Draws | None:
        """Replicates of the paired difference over the benchmarks that both have; None where it cannot be told."""
        shared = sorted(self.columns & other.columns)
        if not shared or not (self.draws.keys() >= {*shared} and other.draws.keys() >= {*shared}):
            return None
        return average([difference(self.draws[c], other.draws[c]) for c in shared])


def row_draws(row: TableRow, columns: Sequence[str], evidence: ResampledScores) -> RowDraws:
    """Look up the replicates of a row; `columns` are those of its table."""
    within = {column: entry for column, entry in zip(columns, row.entries, strict=True) if _is_measured(entry)}
    draws: dict[str, Draws] = {}
    reasons: list[str] = []
    for column, entry in within.items():
        try:
            draws[column] = evidence.relative(scored(entry))
        except NoInterval as e:
            reasons.append(f"{column}: {e}")
    return RowDraws(row, draws, frozenset(within), tuple(reasons))


def complete(rows: Sequence[RowDraws]) -> list[RowDraws]:
    """Keep the rows of a block that have replicates of an average over as many benchmarks as any."""
    most = max((judged.row.n for judged in rows), default=0)
    return [judged for judged in rows if judged.row.n == most and judged.average is not None]


def compared(rows: Sequence[RowDraws], against: RowDraws | None) -> dict[int, float]:
    """Correct p-values of `no difference` for the rows that can be compared with one of them, by position."""
    if against is None:
        return {}
    found = {i: row.minus(against) for i, row in enumerate(rows) if row is not against}
    known = {i: d for i, d in found.items() if d is not None}
    return dict(zip(known, step_down([*known.values()]), strict=True))


def scored(entry: TableEntry) -> list[Record]:
    """List the records of an entry that have a score."""
    return [r for r in entry.records if r.score is not None]


def records_of(table: Table) -> list[Record]:
    """List all records of a table."""
    return [record for block in table.blocks for row in block.rows for entry in row.entries for record in entry.records]


def _is_measured(entry: TableEntry) -> bool:
    """Whether there is a relative accuracy that could have come out otherwise; vanilla's own is always 100."""
    return entry.relative is not None and not all(is_vanilla(r) for r in entry.records)
