"""Measured figures beside published ones, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vtpbench.harness.records.record import BudgetInfo
from vtpbench.report.tables.table import Interval

Verdict = Literal["inside", "outside", "unknown"]
AVG = "Avg"


@dataclass(frozen=True)
class Compared:
    """One measured figure beside a published one."""

    benchmark: str
    """Column of the measured table."""
    beside: str
    """Column of the paper."""
    measured: float
    published: float
    bounds: Interval | None = None
    """Of the measured figure, 95 %."""
    measured_relative: float | None = None
    """Per cent of the measured vanilla; likewise below, of the printed one."""
    published_relative: float | None = None
    reasons: tuple[str, ...] = ()

    @property
    def difference(self) -> float:
        """Measured less published."""
        return self.measured - self.published

    @property
    def relative_difference(self) -> float | None:
        """The same of the relative accuracies, in percentage points."""
        if self.measured_relative is None or self.published_relative is None:
            return None
        return self.measured_relative - self.published_relative

    @property
    def verdict(self) -> Verdict:
        """Whether the published figure, or one that is rounded to it, lies within the measured interval."""
        if self.bounds is None:
            return "unknown"
        half = 0.5 if self.published >= 100 else 0.05
        return "inside" if self.bounds[0] - half <= self.published <= self.bounds[1] + half else "outside"


@dataclass(frozen=True)
class ComparedRow:
    """One pruner at one budget."""

    label: str
    beside: str
    """Row of the paper."""
    budget: BudgetInfo
    cells: tuple[Compared | None, ...]
    average: Compared | None
    """Relative accuracies averaged over the benchmarks that both have."""


@dataclass(frozen=True)
class Comparison:
    """One measured table beside one of the paper."""

    title: str
    name: str
    """Of the paper's table: `table1`."""
    model: str
    columns: tuple[str, ...]
    blocks: tuple[tuple[str, tuple[ComparedRow, ...]], ...]
    """Title and rows, vanilla first."""
    only_measured: tuple[str, ...]
    only_published: tuple[str, ...]

    @property
    def rows(self) -> tuple[ComparedRow, ...]:
        """List the rows of all blocks of a table."""
        return tuple(row for _, rows in self.blocks for row in rows)

    @property
    def cells(self) -> tuple[Compared, ...]:
        """All cells that have both figures, averages left out."""
        return tuple(cell for row in self.rows for cell in row.cells if cell is not None)
