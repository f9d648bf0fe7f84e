"""What answers well and what was measured find each other: the same model, but for weights, the same pruner, the same budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from vtpbench.harness.records.efficiency import EfficiencyRecord, Measured
from vtpbench.harness.records.record import DUMMY, ModelInfo, PrunerInfo, Record
from vtpbench.report.tables.settings import is_vanilla
from vtpbench.report.tables.table import Table, TableRow

ARCHITECTURE = ("family", "vision_tokens", "preprocessing")
"""What models must share beside their label; the number of decoder layers, which tells 7B from 13B, is compared, too."""


@dataclass(frozen=True)
class Joined:
    """Accuracy beside the rows of an efficiency record."""

    values: tuple[float | None, ...]
    """Average relative accuracy of each row, per cent."""
    notes: tuple[str, ...] = ()
    """Why some are not shown although there are answers."""
    fact: str = ""
    """What was answered, where anything is shown."""


@dataclass(frozen=True)
class _Source:
    """An accuracy table that knows the model; `rows` has those that fit each measured row."""

    suite: str
    model: str
    limits: Mapping[str, float]
    """Samples asked of each benchmark of vanilla's average; infinity = all."""
    rows: tuple[tuple[TableRow, ...], ...]

    @property
    def benchmarks(self) -> str:
        """What the averages are over."""
        return ", ".join(name if limit == inf else f"{name} (limit {limit:g})" for name, limit in self.limits.items())

    def is_trial_of(self, other: _Source) -> bool:
        """Whether the other table asks more samples of the same benchmarks."""
        shared = self.suite == other.suite and set(self.limits) <= set(other.limits)
        return shared and _less(self.limits, other.limits)


def fits(record: EfficiencyRecord, measured: Measured, row: TableRow) -> bool:
    """Whether a row of an accuracy table is about what was measured."""
    answered = _first(row)
    return answered is not None and _same_row(measured, answered) and _same_model(record.model, measured, answered)


def join(record: EfficiencyRecord, tables: Sequence[Table]) -> Joined:
    """Find the accuracy of each measured row: none where results that fit differ, or are not over vanilla's benchmarks."""
    found = [source for table in tables if (source := _source(record, table)) is not None]
    found = [source for source in found if not any(source.is_trial_of(other) for other in found)]
    nothing = Joined((None,) * len(record.rows))
    if not found:
        return nothing
    if len({frozenset(source.limits.items()) for source in found}) > 1:
        each = "; ".join(f"suite {source.suite}: {source.benchmarks}" for source in found)
        return Joined(nothing.values, (f"accuracy is not shown: averages over different benchmarks fit ({each})",))
    values: list[float | None] = [100.0]  # vanilla itself
    notes = []
    for number, measured in enumerate(record.rows[1:], 1):
        rows = [row for source in found for row in source.rows[number]]
        complete = sorted({row.average for row in rows if row.average is not None and _benchmarks(row) == {*found[0].limits}})
        values.append(complete[0] if len(complete) == 1 else None)
        name = f"{measured.pruner.label} @ {measured.budget.label}"
        if len(complete) > 1:
            notes.append(f"{name}: no accuracy: results that fit differ ({', '.join(f'{v:.2f}' for v in complete)} %)")
        elif rows and not complete:
            notes.append(f"{name}: no accuracy: benchmarks of vanilla's average are missing")
    suites = ", ".join(dict.fromkeys(source.suite for source in found))
    fact = f"of {found[0].model}, suite {suites}: mean over {found[0].benchmarks}; measured on real weights"
    known = any(value is not None for value in values[1:])
    return Joined(tuple(values), tuple(notes), fact) if known else Joined(nothing.values, tuple(notes))


def _source(record: EfficiencyRecord, table: Table) -> _Source | None:
    """Look for the measured rows in a table; None where it lacks vanilla or all others."""
    rows = tuple(tuple(row for row in _rows(table) if fits(record, measured, row)) for measured in record.rows)
    if not rows[0] or not any(rows[1:]):
        return None
    answers = [entry.records[0] for row in rows[0] for entry in row.entries if entry.relative is not None]
    limits = {record.benchmark.label: record.benchmark.limit or inf for record in answers}
    return _Source(answers[0].suite, answers[0].model.label, limits, rows) if answers else None


def _rows(table: Table) -> Iterator[TableRow]:
    return (row for block in table.blocks for row in block.rows if row.average is not None)


def _benchmarks(row: TableRow) -> set[str]:
    return {entry.records[0].benchmark.label for entry in row.entries if entry.relative is not None}


def _less(limits: Mapping[str, float], others: Mapping[str, float]) -> bool:
    pairs = [(limit, others[name]) for name, limit in limits.items()]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _first(row: TableRow) -> Record | None:
    """Give a record of a row, if it can be one with a result; a published row has none at all."""
    records = [record for entry in row.entries for record in entry.records]
    return next((record for record in records if record.observed is not None), records[0] if records else None)


def _same_model(model: ModelInfo, measured: Measured, answered: Record) -> bool:
    other = answered.model
    called = model.label.casefold() == other.label.casefold()
    built = all(getattr(model, name) == getattr(other, name) for name in ARCHITECTURE)
    layers = {len(seen.per_layer) for seen in (measured.observed, answered.observed) if seen is not None}
    same = (model.weights, model.tower) == (other.weights, other.tower)
    trained = other.weights != DUMMY and (same or model.weights == DUMMY)  # speed does not depend on the weights
    return called and built and len(layers) < 2 and trained


def _same_row(measured: Measured, answered: Record) -> bool:
    if measured.pruner.name != answered.pruner.name or is_vanilla(answered):
        return measured.pruner.name == answered.pruner.name
    return measured.budget == answered.budget and _same_options(measured.pruner, answered.pruner)


def _same_options(measured: PrunerInfo, answered: PrunerInfo) -> bool:
    """Compare all options; a network with random weights stands for any other, too."""
    drawn = {name for name, value in measured.options.items() if value == DUMMY} & answered.options.keys()
    return {**measured.options, **{name: answered.options[name] for name in drawn}} == answered.options
