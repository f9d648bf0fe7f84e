"""Add intervals, tests and marks to a finished table."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from vtpbench.harness.records.record import Record
from vtpbench.pruners.errors import UserError, did_you_mean
from vtpbench.report.stats.draws import Draws, difference, interval
from vtpbench.report.stats.max_t import step_down
from vtpbench.report.stats.resampled import ResampledScores, Samples
from vtpbench.report.stats.row_draws import RowDraws, compared, complete, records_of, row_draws, scored
from vtpbench.report.stats.sums import NoInterval, NoSamples
from vtpbench.report.tables.conventions import BEST, LEVEL, REFERENCE, REPLICATES
from vtpbench.report.tables.footer import explain
from vtpbench.report.tables.layout import symbols
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
    records = [record for table in tables for record in records_of(table)]
    names = {REFERENCE, BEST, *(r.pruner.name for r in records), *(r.pruner.label for r in records)}
    if reference not in names:
        raise UserError(f"no row '{reference}' to test against; {did_you_mean(reference, names)}")
    return tuple(_table(table, samples, reference, replicates) for table in tables)


def _table(table: Table, samples: Samples, reference: str, replicates: int) -> Table:
    evidence = ResampledScores(records_of(table), samples, replicates)
    notes = list(table.notes)
    blocks = tuple(_block(block, table.columns, evidence, reference, notes) for block in table.blocks)
    rows = [row for block in blocks for row in block.rows]
    if not any(row.average_interval for row in rows):
        return replace(table, blocks=blocks, notes=tuple(notes))
    lines = explain(table.footer, "".join(map(symbols, rows)), reference, replicates)
    return replace(table, blocks=blocks, notes=tuple(notes), footer=lines)


def _block(block: Block, columns: Sequence[str], evidence: ResampledScores, reference: str, notes: list[str]) -> Block:
    rows = [row_draws(row, columns, evidence) for row in block.rows]
    best = max(complete(rows), key=lambda r: r.row.average or 0.0, default=None)
    chosen = best if reference == BEST else next((r for r in rows if _is(r.row, reference)), None)
    against_best, against_chosen = compared(rows, best), compared(rows, chosen)
    ties = _ties(rows, columns)
    return replace(
        block,
        rows=tuple(
            replace(
                _row(judged, columns, ties[i], evidence, notes),
                tied=against_best.get(i, 0.0) >= 1 - LEVEL,
                p_value=against_chosen.get(i),
            )
            for i, judged in enumerate(rows)
        ),
    )


def _ties(rows: Sequence[RowDraws], columns: Sequence[str]) -> list[set[str]]:
    """Columns in which each row cannot be told apart from the best of its block there."""
    found: list[set[str]] = [set() for _ in rows]
    for i, column in enumerate(columns):
        known = {k: row.draws[column] for k, row in enumerate(rows) if column in row.draws}
        if len(known) > 1:
            best = max(known, key=lambda k: rows[k].row.entries[i].relative or 0.0)
            others = [k for k in known if k != best]
            for k, p in zip(others, step_down([difference(known[k], known[best]) for k in others]), strict=True):
                found[k] |= {column} if p >= 1 - LEVEL else set()
    return found


def _row(judged: RowDraws, columns: Sequence[str], ties: set[str], evidence: ResampledScores, notes: list[str]) -> TableRow:
    numbers: tuple[int, ...] = ()
    if judged.why_not:
        text = f"no interval: {'; '.join(judged.why_not)}"
        if text not in notes:
            notes.append(text)
        numbers = (notes.index(text) + 1,)
    entries = tuple(
        replace(_entry(entry, judged.draws.get(column), evidence), tied=column in ties)
        for column, entry in zip(columns, judged.row.entries, strict=True)
    )
    found = None if judged.average is None else interval(judged.average)
    return replace(judged.row, entries=entries, average_interval=found, notes=numbers)


def _entry(entry: TableEntry, draws: Draws | None, evidence: ResampledScores) -> TableEntry:
    tried = {r.cell_id: _cell(r, draws is not None, evidence) for r in scored(entry)}
    cells = {name: cell for name, cell in tried.items() if cell is not None}
    found = replace(entry, interval=None if draws is None else interval(draws), cell_intervals=cells)
    with suppress(NoInterval):
        return replace(found, score_interval=interval(evidence.score(scored(entry)))) if cells else found
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


def _is(row: TableRow, name: str) -> bool:
    return any(name in (r.pruner.name, r.pruner.label) for entry in row.entries for r in entry.records)
