"""Measured figures beside published ones: the difference, whether it is within the error, and the reasons that are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean
from typing import Any

from vtpbench.harness.records.record import Record
from vtpbench.pruners.errors import UserError
from vtpbench.report.published.compared import AVG, Compared, ComparedRow, Comparison
from vtpbench.report.published.match import columns_of, reasons, rows_of, same_budget, tables_of
from vtpbench.report.published.published import VANILLA, PaperRow, PaperTable, Published, number
from vtpbench.report.tables.rounding import relative
from vtpbench.report.tables.table import Interval, Table, TableEntry, TableRow

NORMAL_95 = 1.959964


def stderr_bounds(entry: TableEntry) -> Interval | None:
    """Give the normal interval from the standard errors of the records and, with several seeds, from their spread.

    For records without per-sample tables alone: where there was something to resample and the bootstrap refused, as it does
    for fewer than ten images, the standard error, which takes questions for independent, is no better founded.
    """
    if entry.cell_intervals:
        return None
    errors = [record.stderr for record in entry.records if record.score is not None]
    if entry.score is None or not errors or any(error is None for error in errors):
        return None
    seeds = 0.0 if entry.spread is None else entry.spread**2 / len(errors)
    half = NORMAL_95 * sqrt(fmean(error**2 for error in errors if error is not None) + seeds)
    return entry.score - half, entry.score + half


def compare(tables: Sequence[Table], figures: Published) -> tuple[Comparison, ...]:
    """Lay measured tables beside those that the paper prints of the same model.

    Verdicts rest on the tables' own intervals; where records have no per-sample tables, on the records' standard errors.

    Raises
    ------
    UserError
        No model, or no benchmark of a model, is in the paper; the message names what is.

    """
    comparisons: list[Comparison] = []
    for table in tables:
        record = _any_record(table)
        names = tables_of(figures, record.model) if record else ()
        found = [_compare(table, name, figures) for name in names]
        filled = [one for one in found if one.cells or any(row.average for row in one.rows)]
        pruned = [one for one in filled if any(row.beside != VANILLA for row in one.rows)]
        comparisons += pruned or filled[:1]  # vanilla is in all tables of a model
    if not comparisons:
        raise UserError(_nothing(tables, figures))
    return tuple(comparisons)


def _nothing(tables: Sequence[Table], figures: Published) -> str:
    models = list(dict.fromkeys(record.model.label for table in tables if (record := _any_record(table)) is not None))
    known = "; ".join(
        f"{table.model} ({number(name)}: {', '.join(table.benchmarks)})"
        for name, table in figures.tables.items()
        if table.has_scores
    )
    measured = ", ".join(models) if models else "a model without records"
    return f"{figures.source.paper} has no figures to stand beside {measured}; it has {known}"


def _any_record(table: Table) -> Record | None:
    return next((record for block in table.blocks for row in block.rows if (record := _record(row)) is not None), None)


def _record(row: TableRow) -> Record | None:
    return next((record for entry in row.entries for record in entry.records), None)


@dataclass(frozen=True)
class _Pair:
    """A measured table, one of the paper, and which columns stand beside each other."""

    name: str
    table: PaperTable
    figures: Published
    columns: Mapping[int, str]
    """Benchmark of the paper, by number of the measured column."""


def _compare(measured: Table, name: str, figures: Published) -> Comparison:
    table = figures.tables[name]
    tasks = {
        i: entry.records[0].benchmark.task
        for block in measured.blocks
        for row in block.rows
        for i, entry in enumerate(row.entries)
        if entry.records
    }
    columns = {i: beside for i in sorted(tasks) if (beside := columns_of(figures, table, tasks[i])) is not None}
    pair = _Pair(name, table, figures, columns)
    blocks = [(block.title, tuple(made for row in block.rows for made in _rows(row, pair))) for block in measured.blocks]
    filled = tuple((title, rows) for title, rows in blocks if rows)
    rows = [row for _, made in filled for row in made]
    record = _any_record(measured)
    return Comparison(
        title=f"{measured.title} · beside {number(name)} of {figures.source.paper}",
        name=name,
        model=record.model.label if record else "",
        columns=tuple(measured.columns[i] for i in columns),
        blocks=filled,
        only_measured=tuple(_only_measured(measured, rows, columns)),
        only_published=tuple(_only_published(pair, rows)),
    )


def _rows(row: TableRow, pair: _Pair) -> Iterator[ComparedRow]:
    record = _record(row)
    if record is None:
        return
    names = rows_of(pair.figures, record.pruner)
    found: list[tuple[PaperRow, float | None]] = [(pair.table.vanilla, None)] if VANILLA in names else []
    found += [
        (beside, block.budget.tokens)
        for block in pair.table.blocks
        if same_budget(block.budget, record.budget)
        for beside in block.rows
        if beside.pruner in names
    ]
    made = (_row(row, record, beside, tokens, pair) for beside, tokens in found)
    yield from (row for row in made if row.average or any(row.cells))


def _row(row: TableRow, record: Record, beside: PaperRow, tokens: float | None, pair: _Pair) -> ComparedRow:
    cells: list[Compared | None] = []
    for i, benchmark in pair.columns.items():
        j = pair.table.benchmarks.index(benchmark)
        place = {"tables": pair.name, "benchmarks": benchmark, "pruners": beside.pruner, "budgets": tokens}
        cells.append(_cell(row.entries[i], beside.score[j], pair.table.vanilla.score[j], place, pair.figures))
    return ComparedRow(row.label, beside.pruner, record.budget, tuple(cells), _average(row, cells, beside, pair))


def _cell(
    entry: TableEntry, printed: float | None, vanilla: float | None, place: Mapping[str, Any], figures: Published
) -> Compared | None:
    record = next((r for r in entry.records if r.score is not None), None)
    if entry.score is None or record is None or printed is None:
        return None
    return Compared(
        benchmark=record.benchmark.label,
        beside=place["benchmarks"],
        measured=entry.score,
        published=printed,
        bounds=entry.score_interval or stderr_bounds(entry),
        measured_relative=entry.relative,
        published_relative=relative(printed, vanilla, record.benchmark.higher_is_better),
        reasons=reasons(figures, place, record),
    )


def _average(row: TableRow, cells: Sequence[Compared | None], beside: PaperRow, pair: _Pair) -> Compared | None:
    """Average what both have; a row that is printed as an average only is compared where all its benchmarks are measured."""
    ratios: dict[str, tuple[float, float | None]] = {}
    for (i, benchmark), cell in zip(pair.columns.items(), cells, strict=True):
        own = row.entries[i].relative
        printed_only = not any(score is not None for score in beside.score)
        if own is not None and (printed_only or cell is not None):
            ratios.setdefault(benchmark, (own, cell.published_relative if cell else None))
    if not ratios:
        return None
    printed = [theirs for _, theirs in ratios.values() if theirs is not None]
    if printed:
        published = fmean(printed)
    elif len(ratios) == len(pair.table.benchmarks) and beside.average is not None:
        published = beside.average
    else:
        return None
    whole = len(ratios) == row.n
    bounds = row.average_interval if whole else None
    return Compared(AVG, AVG, fmean(own for own, _ in ratios.values()), published, bounds)


def _only_measured(measured: Table, rows: Sequence[ComparedRow], columns: Mapping[int, str]) -> Iterator[str]:
    """Name rows and columns without a counterpart."""
    matched = {(row.budget, row.label) for row in rows}
    found = [(record.budget, row.label) for block in measured.blocks for row in block.rows if (record := _record(row))]
    missing = [(_words(budget.tokens, budget.ratio), label) for budget, label in found if (budget, label) not in matched]
    yield from _grouped(missing, {label for _, label in matched})
    yield from (f"benchmark {label}" for i, label in enumerate(measured.columns) if i not in columns)


def _only_published(pair: _Pair, rows: Sequence[ComparedRow]) -> Iterator[str]:
    matched = {(row.budget, row.beside) for row in rows}
    missing = [
        (_words(block.budget.tokens, block.budget.percent / 100), row.pruner)
        for block in pair.table.blocks
        for row in block.rows
        if not any(same_budget(block.budget, budget) and name == row.pruner for budget, name in matched)
    ]
    yield from _grouped(missing, {name for _, name in matched})
    yield from (f"benchmark {name}" for name in pair.table.benchmarks if name not in pair.columns.values())


def _words(tokens: float | None, ratio: float | None) -> str:
    return f"{tokens:g} tokens" if tokens is not None else "all tokens" if ratio is None else f"{100 * ratio:.4g} %"


def _grouped(missing: Sequence[tuple[str, str]], elsewhere: set[str]) -> Iterator[str]:
    """Name each row once; its budgets only where it has a counterpart at others."""
    for label in dict.fromkeys(label for _, label in missing):
        budgets = ", ".join(budget for budget, other in missing if other == label)
        yield f"{label} ({budgets})" if label in elsewhere else label
