"""Reports of their own: the sheets that options of `vtpbench report` ask for in place of the tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    from vtpbench.harness.gather.sources import Sources
    from vtpbench.report.formats.sheet import Sheet
    from vtpbench.report.tables.table import Table


@dataclass(frozen=True)
class AskedSheet:
    """What was asked for, at most one of them."""

    against: str | None
    samples: bool
    between: tuple[str, str] | None
    margin: str | None

    @property
    def options(self) -> dict[str, object]:
        """Values by option."""
        return {"--against": self.against, "--samples": self.samples, "--between": self.between, "--margin": self.margin}

    def __bool__(self) -> bool:
        return any(self.options.values())

    def sheet(self, tables: Sequence[Table], found: Sources) -> Sheet:
        """Make the sheet from the tables of what was found; raises `UserError`."""
        if self.against:
            return _compared(tables, self.against)
        if self.between:
            from vtpbench.report.analyses.between import between
            from vtpbench.report.analyses.between_sheet import between_sheet

            return between_sheet(between(tables, self.between, found.samples))
        if self.margin:
            from vtpbench.report.analyses.decisions import decide_tables, read_margin
            from vtpbench.report.analyses.decisions_sheet import decisions_sheet

            return decisions_sheet(decide_tables(tables, read_margin(self.margin), found.samples))
        from vtpbench.report.analyses.flips import flips, flips_sheet

        return flips_sheet(flips(found.records, found.samples))


def _compared(tables: Sequence[Table], against: str) -> Sheet:
    """Lay published figures beside measured ones."""
    from vtpbench.report.published.against import compare
    from vtpbench.report.published.against_sheet import against_sheet
    from vtpbench.report.published.published import PAPER, published

    if against != PAPER:
        raise UserError(f"--against {against}: only 'paper', the tables of the OC-VTP paper, is known")
    return against_sheet(compare(tables, published()))
