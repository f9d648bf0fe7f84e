"""Add intervals, tests and marks to a finished table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from vtpbench.harness.records.record import Record
from vtpbench.pruners.errors import UserError, did_you_mean
from vtpbench.report.stats.draws import Draws, average, difference, holm, interval, p_value
from vtpbench.report.stats.resampled import ResampledScores, Samples
from vtpbench.report.stats.sums import NoInterval, NoSamples
from vtpbench.report.tables.conventions import BEST, LEVEL, REFERENCE, REPLICATES
from vtpbench.report.tables.footer import explain
from vtpbench.report.tables.layout import symbols
from vtpbench.report.tables.settings import is_vanilla
from vtpbench.report.tables.table import Block, CellIntervals, Table, TableEntry, TableRow


def add_intervals(
    tables: Sequence[Table], samples: Samples, reference: str = REFERENCE, replicates: int = REPLICATES
) -> tuple[Table, ...]:
    """Say of each number how far it can be trusted, and of each row whether it differs from others of its block.

    `reference` is the name or label of a pruner, or `best`: the row of a block with the highest average.

    Raises
    ------
    UserError
        There is no such row.

    """
    records = [record for table in tables for record in _records(table)]
    names = {REFERENCE, BEST, *(r.pruner.name for r in records), *(r.pruner.label for r in records)}
    if reference not in names:
        raise UserError(f"no row '{reference}' to test against; {did_you_mean(reference, names)}")
    return tuple(_table(table, samples, reference, replicates) for table in tables)


def _table(table: Table, samples: Samples, reference: str, replicates: int) -> Table:
    evidence = ResampledScores(_records(table), samples, replicates)
    notes = list(table.notes)
    blocks = tuple(_block(block, table.columns, evidence, reference, notes) for block in table.blocks)
    rows = [row for block in blocks for row in block.rows]
    if not any(row.average_interval for row in rows):
        return replace(table, blocks=blocks, notes=tuple(notes))
    lines = explain(table.footer, "".join(map(symbols, rows)), reference, replicates)
    return replace(table, blocks=blocks, notes=tuple(notes), footer=lines)


@dataclass(frozen=True)
class _Judged:
    """A row, and the replicates of its relative accuracies by column."""

    row: TableRow
    draws: Mapping[str, Draws]
    columns: frozenset[str]
    """Benchmarks in its average."""

    def compare(self, other: _Judged) -> float | None:
        """p-value of `equal averages over the benchmarks that both have`; None where it cannot be told."""
        shared = sorted(self.columns & other.columns)
        if not shared or not all(column in self.draws and column in other.draws for column in shared):
            return None
        return p_value(average([difference(self.draws[column], other.draws[column]) for column in shared]))


def _block(block: Block, columns: Sequence[str], evidence: ResampledScores, reference: str, notes: list[str]) -> Block:
    rows = [_row(row, columns, evidence, notes) for row in block.rows]
    complete = [r for r in rows if r.row.average_interval is not None and r.row.n == max(other.row.n for other in rows)]
    best = max(complete, key=lambda r: r.row.average or 0.0, default=None)
    chosen = best if reference == BEST else next((r for r in rows if _is(r.row, reference)), None)
    against_best, against_chosen = _tests(rows, best), _tests(rows, chosen)
    return replace(
        block,
        rows=tuple(
            replace(judged.row, tied=against_best.get(i, 0.0) >= 1 - LEVEL, p_value=against_chosen.get(i))
            for i, judged in enumerate(rows)
        ),
    )


def _tests(rows: Sequence[_Judged], against: _Judged | None) -> dict[int, float]:
    """Corrected p-values of the rows that can be compared with one of them, by position."""
    if against is None:
        return {}
    found = {i: row.compare(against) for i, row in enumerate(rows) if row is not against}
    known = {i: p for i, p in found.items() if p is not None}
    return dict(zip(known, holm(list(known.values())), strict=True))


def _row(row: TableRow, columns: Sequence[str], evidence: ResampledScores, notes: list[str]) -> _Judged:
    within = {column: entry for column, entry in zip(columns, row.entries, strict=True) if _is_measured(entry)}
    draws: dict[str, Draws] = {}
    reasons: list[str] = []
    for column, entry in within.items():
        try:
            draws[column] = evidence.relative(_scored(entry))
        except NoInterval as e:
            reasons.append(f"{column}: {e}")
    numbers: tuple[int, ...] = ()
    if reasons:
        text = f"no interval: {'; '.join(reasons)}"
        if text not in notes:
            notes.append(text)
        numbers = (notes.index(text) + 1,)
    entries = tuple(_entry(entry, draws.get(column), evidence) for column, entry in zip(columns, row.entries, strict=True))
    whole = bool(draws) and not reasons
    found = interval(average(list(draws.values()))) if whole else None
    return _Judged(replace(row, entries=entries, average_interval=found, notes=numbers), draws, frozenset(within))


def _entry(entry: TableEntry, draws: Draws | None, evidence: ResampledScores) -> TableEntry:
    tried = {r.cell_id: _cell(r, draws is not None, evidence) for r in _scored(entry)}
    cells = {name: cell for name, cell in tried.items() if cell is not None}
    found = replace(entry, interval=None if draws is None else interval(draws), cell_intervals=cells)
    with suppress(NoInterval):
        return replace(found, score_interval=interval(evidence.score(_scored(entry)))) if cells else found
    return found


def _cell(record: Record, with_relative: bool, evidence: ResampledScores) -> CellIntervals | None:
    """Intervals of one record; None where there is nothing to resample."""
    score = ratio = None
    try:
        score = interval(evidence.score([record]))
        ratio = interval(evidence.relative([record])) if with_relative else None
    except NoSamples:
        return None
    except NoInterval:
        pass
    return CellIntervals(score, ratio)


def _records(table: Table) -> list[Record]:
    return [record for block in table.blocks for row in block.rows for entry in row.entries for record in entry.records]


def _scored(entry: TableEntry) -> list[Record]:
    return [r for r in entry.records if r.score is not None]


def _is_measured(entry: TableEntry) -> bool:
    """Whether there is a relative accuracy that could have come out otherwise; vanilla's own is always 100."""
    return entry.relative is not None and not all(is_vanilla(r) for r in entry.records)


def _is(row: TableRow, name: str) -> bool:
    return any(name in (r.pruner.name, r.pruner.label) for entry in row.entries for r in entry.records)
