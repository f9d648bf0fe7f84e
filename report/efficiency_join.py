"""What answers well and what was measured find each other by the labels of model, pruner and budget."""

from __future__ import annotations

from collections.abc import Iterable

from vtpbench.harness.efficiency.record import EfficiencyRecord, Measured
from vtpbench.report.settings import is_vanilla
from vtpbench.report.table import Row, Table

Key = tuple[str, str, str]
"""Labels of model, pruner and budget; the last two are empty for vanilla, which a suite may call otherwise than a profile."""


def key_of_answers(row: Row) -> Key | None:
    """Name a row of an accuracy table; None where nothing was measured here, as in a published table."""
    first = next((record for entry in row.entries for record in entry.records), None)
    if first is None:
        return None
    return (first.model.label, "", "") if is_vanilla(first) else (first.model.label, first.pruner.label, first.budget.label)


def key_of_measured(record: EfficiencyRecord, row: Measured) -> Key:
    """Name a row of an efficiency record, of which the first is vanilla."""
    return (record.model.label, "", "") if row is record.rows[0] else (record.model.label, row.pruner.label, row.budget.label)


def accuracies(tables: Iterable[Table]) -> dict[Key, float]:
    """Average relative accuracy of each row, per cent; of tables that share a row the first counts."""
    known: dict[Key, float] = {}
    for row in (row for table in tables for block in table.blocks for row in block.rows):
        key = key_of_answers(row)
        if key is not None and row.average is not None:
            known.setdefault(key, row.average)
    return known
