"""What rows cost, to hold against their accuracy: observed tokens, and what `vtpbench profile` measured of the same model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vtpbench.harness.records.efficiency import EfficiencyRecord
from vtpbench.harness.records.record import DUMMY
from vtpbench.report.efficiency.columns import DIGITS
from vtpbench.report.efficiency.join import fits
from vtpbench.report.efficiency.row import EfficiencyRow, Spread
from vtpbench.report.efficiency.table import EfficiencyTable, ordered, table_of
from vtpbench.report.tables.amounts import Operations, milliseconds, significant
from vtpbench.report.tables.layout import clean
from vtpbench.report.tables.rounding import half_up
from vtpbench.report.tables.settings import is_vanilla
from vtpbench.report.tables.table import Table, TableRow


@dataclass(frozen=True)
class Cost:
    """Cost of one row: for the chart, and in words."""

    value: float
    text: str


@dataclass(frozen=True)
class Axis:
    """A cost that the chart can show; less is better."""

    key: str
    label: str
    title: str
    """The same without the conditions that tell it from others like it."""
    logarithmic: bool
    source: str
    """Where the figures come from, where that is not the table itself."""
    cost: Callable[[TableRow], Cost | None]


@dataclass(frozen=True)
class Profile:
    """One efficiency record and its table, with the accuracies of the page's tables."""

    record: EfficiencyRecord
    table: EfficiencyTable

    @property
    def conditions(self) -> str:
        """What the times depend on."""
        weights = ["random weights"] if self.record.model.weights == DUMMY else []
        graphs = ["as CUDA graphs"] if self.record.load.graphs else []
        return ", ".join([f"batch {self.record.load.batch}", *graphs, *weights, clean(self.record.machine.environment.device)])

    def budget_tokens(self, number: int) -> float:
        """Vision tokens that the budget of row `number` means, also where it was not reached."""
        budget, vanilla = self.record.rows[number].budget, self.table.rows[0].tokens or 0
        return budget.tokens or (vanilla if budget.ratio is None else budget.ratio * vanilla)

    def row(self, row: TableRow) -> EfficiencyRow | None:
        """Find what was measured of a row of an accuracy table."""
        rows = zip(self.record.rows, self.table.rows, strict=True)
        return next((shown for measured, shown in rows if fits(self.record, measured, row)), None)


def profiles(records: Sequence[EfficiencyRecord], tables: Sequence[Table]) -> list[Profile]:
    """Make the table of each record, with what `tables` know of accuracy."""
    return [Profile(record, table_of(record, tables)) for record in ordered(records)]


def axes(rows: Sequence[TableRow], found: Sequence[Profile]) -> list[Axis]:
    """List the costs that are known of any of some rows; what was profiled in several ways has an axis for each."""
    fitting = [profile for profile in found if any(profile.row(row) for row in rows)]
    several = len({profile.conditions for profile in fitting}) > 1
    possible = [TOKENS]
    for number, profile in enumerate(fitting):
        more = f", {profile.conditions}" if several else ""
        possible += _profiled(profile, str(number), more)
    return [axis for axis in possible if any(axis.cost(row) for row in rows)]


def _tokens(row: TableRow) -> Cost | None:
    return None if row.observed is None else Cost(row.observed, f"{half_up(row.observed, 1)} tokens")


def _time(value: Spread | None) -> Cost | None:
    if value is None:
        return None
    spread = "" if value.iqr is None else f" (interquartile range {milliseconds(value.iqr)})"
    return Cost(value.median, f"{milliseconds(value.median)} ms{spread}")


_NAME = "Observed vision tokens per layer"
TOKENS = Axis("tokens", _NAME, _NAME, True, "", _tokens)
TIMES: dict[str, tuple[str, Callable[[EfficiencyRow], Spread | None]]] = {
    "ttft": ("Time to first token, ms", lambda row: row.ttft_ms),
    "total": ("End to end time, ms", lambda row: row.total_ms),
}
"""Label and spread of each time that the charts share, by its key."""


def _measures(unit: Operations) -> dict[str, tuple[str, Callable[[EfficiencyRow], Cost | None]]]:
    """Label and cost of each axis that efficiency records give, by its key."""

    def operations(value: float | None) -> Cost | None:
        return None if value is None else Cost(unit.of_tera * value, f"{significant(unit.of_tera * value, DIGITS)} {unit.name}")

    return {
        "exact": (f"{unit.name} to the first token", lambda row: operations(row.exact_tflops)),
        "table4": (f"{unit.name} of the prefill, as in Table 4", lambda row: operations(row.table4_tflops)),
    } | {key: (label, lambda row, of=of: _time(of(row))) for key, (label, of) in TIMES.items()}


def _profiled(profile: Profile, key: str, more: str) -> Iterator[Axis]:
    source = f"{clean(profile.record.model.label)}, {profile.conditions}"
    for name, (title, of) in _measures(profile.table.operations).items():

        def cost(row: TableRow, of: Callable[[EfficiencyRow], Cost | None] = of) -> Cost | None:
            measured = profile.row(row)
            return None if measured is None else of(measured)

        yield Axis(f"{name}-{key}", title + more, title, False, source, cost)


def is_denominator(row: TableRow) -> bool:
    """Whether a row is vanilla's."""
    return any(is_vanilla(record) for entry in row.entries for record in entry.records)
