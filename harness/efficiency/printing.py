"""Tables of the efficiency records in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from vtpbench.harness.efficiency.record import find_efficiency
from vtpbench.harness.record import Record
from vtpbench.pruners.errors import UserError
from vtpbench.report.efficiency import EfficiencyTable, build
from vtpbench.report.efficiency_text import render


def efficiency_of(folder: Path, warn: Callable[[str], None], records: Iterable[Record] = ()) -> list[EfficiencyTable]:
    """Make the tables of all efficiency records below a folder, or of one file.

    `records` are those of answers; where they are of the same model, relative accuracy stands beside. Raises `UserError`
    where there is no efficiency record that can be trusted.
    """
    found = find_efficiency(folder, warn)
    if not found:
        raise UserError(f"no efficiency records in {folder}; measure something first: vtpbench profile efficiency")
    return build(found, records)


def efficiency_tables(
    folder: Path, warn: Callable[[str], None], records: Iterable[Record] = (), format_name: str = "markdown"
) -> str:
    """Print these tables as `markdown`, `csv` or `json`."""
    return render(efficiency_of(folder, warn, records), format_name)
