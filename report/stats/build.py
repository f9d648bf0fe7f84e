"""Records in, tables out, with intervals and tests where there are samples to resample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from vtpbench.harness.records.record import Record
from vtpbench.report.tables.conventions import REFERENCE
from vtpbench.report.tables.table import Table, build_tables

if TYPE_CHECKING:
    from vtpbench.report.stats.resampled import Samples


def build(
    records: Iterable[Record],
    benchmarks: Sequence[str] = (),
    pruners: Sequence[str] = (),
    samples: Samples | None = None,
    reference: str = REFERENCE,
) -> tuple[Table, ...]:
    """Make the tables as `build_tables` does, and add what is known of their errors.

    `samples` gives the per-sample table of a record, or None, and with it come intervals and tests; the rows of a block are
    tested against `reference`: the name or label of a pruner, or `best`.
    """
    tables = build_tables(records, benchmarks, pruners)
    if samples is None:
        return tables
    from vtpbench.report.stats.apply import add_intervals  # scipy and pandas, only where they are needed

    return add_intervals(tables, samples, reference)
