"""Rows by the names that users give them: `OC-VTP@64`, `random@11.1%`, `vanilla`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vtpbench.pruners.errors import UserError, did_you_mean
from vtpbench.report.tables.settings import identity, is_vanilla
from vtpbench.report.tables.table import Table, TableRow

RowKey = tuple[str, str]


def row_name(row: TableRow) -> str:
    """Name a measured row by its label and its budget."""
    record = next(record for entry in row.entries for record in entry.records)
    return row.label if is_vanilla(record) else f"{row.label}@{record.budget.label}"


def row_key(row: TableRow) -> RowKey:
    """Tell which pruner and budget a measured row is of; equal in tables of parts of its samples, whatever its label there."""
    record = next(record for entry in row.entries for record in entry.records)
    return identity(record.pruner), identity(record.budget)


def measured_rows(table: Table) -> Iterator[TableRow]:
    """Go through the rows that have records; published ones have none."""
    return (row for block in table.blocks for row in block.rows if any(entry.records for entry in row.entries))


def find_rows(tables: Sequence[Table], names: Sequence[str]) -> list[tuple[Table, list[TableRow]]]:
    """Find the tables that have a row of each name, and these rows in the order of the names.

    Raises
    ------
    UserError
        A row is nowhere, its budget is not given where there are several, or no table has all.

    """
    known = [(table, {row_name(row): row for row in measured_rows(table)}) for table in tables]
    asked = [_full_name(name, [*dict.fromkeys(full for _, rows in known for full in rows)]) for name in names]
    found = [(table, [rows[name] for name in asked]) for table, rows in known if rows.keys() >= {*asked}]
    if not found:
        raise UserError(f"no table has both {' and '.join(asked)}: they were not measured in one setting")
    return found


def _full_name(name: str, known: Sequence[str]) -> str:
    if name in known:
        return name
    same = [full for full in known if full.rpartition("@")[0] == name]
    if len(same) == 1:
        return same[0]
    if same:
        raise UserError(f"'{name}' stands for {len(same)} rows; say which: {', '.join(same)}")
    raise UserError(f"no row '{name}'; {did_you_mean(name, known)}")
