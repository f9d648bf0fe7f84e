"""What pruning saves and costs: efficiency records in, tables out, each ratio against vanilla in the same run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from vtpbench.harness.efficiency.record import BEFORE_FIRST_TOKEN, STAGES, EfficiencyRecord, Measured
from vtpbench.harness.record import Record
from vtpbench.report.efficiency_join import Key, accuracies, key_of_measured
from vtpbench.report.table import build as build_accuracy

FENCE = 1.5
"""Interquartile ranges beyond the quartiles from which a value counts as an outlier (Tukey)."""


@dataclass(frozen=True)
class Spread:
    """Repeated values of one quantity: none is left out, those far off are counted."""

    median: float
    low: float
    high: float
    """Quartiles."""
    outliers: int

    @property
    def iqr(self) -> float:
        """Interquartile range."""
        return self.high - self.low


@dataclass(frozen=True)
class EfficiencyRow:
    """One pruner at one budget; times in milliseconds for the whole batch, operations for one prompt."""

    pruner: str
    budget: str
    status: str
    reason: str = ""
    tokens: float | None = None
    """Observed, mean over layers."""
    stages_ms: Mapping[str, Spread] | None = None
    ttft_ms: Spread | None = None
    """From the picture to the first token: all stages but `decode`."""
    tpot_ms: Spread | None = None
    """Each further token."""
    total_ms: Spread | None = None
    ttft_speedup: float | None = None
    """Median over repeats of vanilla's time divided by this row's in the same turn."""
    total_speedup: float | None = None
    exact_tflops: float | None = None
    """Up to the first token: tower, pruner, projector, prefill, `lm_head`."""
    table4_tflops: float | None = None
    """Of the prefill, as the papers count it; the pruner is not in it."""
    pruner_gflops: float | None = None
    kv_mib: float | None = None
    peak_mib: float | None = None
    accuracy: float | None = None
    """Per cent of vanilla's accuracy, mean over benchmarks, where it was measured."""


@dataclass(frozen=True)
class EfficiencyTable:
    """One run on one model; the first row is vanilla."""

    title: str
    rows: tuple[EfficiencyRow, ...]
    break_even: Mapping[str, str]
    """By pruner, the largest budget whose median time to the first token is below vanilla's."""
    notes: tuple[str, ...]
    footer: tuple[tuple[str, str], ...]


def build(records: Iterable[EfficiencyRecord], accuracy: Iterable[Record] = ()) -> list[EfficiencyTable]:
    """Make a table of each record; accuracy of the same model stands beside, as the tables of `accuracy` give it."""
    found = ordered(records)
    known = accuracies(build_accuracy(list(accuracy))) if found else {}
    return [table_of(record, known) for record in found]


def ordered(records: Iterable[EfficiencyRecord]) -> list[EfficiencyRecord]:
    """Sort records in the order in which a report shows them."""
    return sorted(records, key=lambda record: (record.model.label, record.load.batch, record.created))


def spread(values: Sequence[float]) -> Spread:
    """Describe repeated values by median and interquartile range."""
    if len(values) < 2:
        return Spread(median(values), median(values), median(values), 0)
    low, middle, high = quantiles(values, n=4, method="inclusive")
    reach = FENCE * (high - low)
    return Spread(middle, low, high, sum(value < low - reach or value > high + reach for value in values))


def milliseconds(value: float) -> str:
    """Print three significant digits, and no exponent."""
    return f"{value:.0f}" if value >= 99.5 else f"{value:.3g}"


def table_of(record: EfficiencyRecord, accuracy: Mapping[Key, float]) -> EfficiencyTable:
    """Make the table of one record; `accuracy` is what is known of any model."""
    vanilla = record.rows[0]
    rows = tuple(_row(record, row, vanilla, accuracy) for row in record.rows)
    load, environment = record.load, record.machine.environment
    title = f"{record.model.label}, batch {load.batch}" + (", random weights" if record.model.weights == "dummy" else "")
    versions = {**environment.versions, "driver": record.machine.driver}
    masked = {row.masked_layers for row in record.rows if row.status == "ok"}
    masks = "the same mask in all rows" if len(masked) == 1 else "rows differ in layers with an explicit mask"
    times = f"{load.repeats} repeats, all rows in turn, after {load.warmup} for warming up; median (interquartile range)"
    footer = (
        ("device", f"{environment.device}, CPU threads: {record.machine.threads}"),
        ("dtype, attention", f"{record.model.dtype}, {record.model.attention}, {masks}; no compilation, no graphs"),
        ("prompt", f"{load.picture[0]} x {load.picture[1]} pixels, {vanilla.text_tokens} text tokens, {load.new_tokens} new"),
        ("times", times + _outliers(rows)),
        ("versions", ", ".join(f"{name} {value}" for name, value in versions.items() if value)),
        ("measured", record.created),
    )
    reasons = (f"{row.pruner} @ {row.budget}: {row.status}: {row.reason}" for row in rows if row.status != "ok")
    return EfficiencyTable(title, rows, _break_even(rows), tuple(reasons), footer)


def _outliers(rows: Sequence[EfficiencyRow]) -> str:
    count = sum(row.total_ms.outliers for row in rows if row.total_ms is not None)
    return f"; {count} outliers among the end-to-end times, none left out" if count else ""


def _row(record: EfficiencyRecord, row: Measured, vanilla: Measured, accuracy: Mapping[Key, float]) -> EfficiencyRow:
    names: dict[str, Any] = {"pruner": row.pruner.label, "budget": row.budget.label, "status": row.status}
    if row.observed is None:
        return EfficiencyRow(**names, reason=row.reason or "")
    first, total = row.summed_ms(BEFORE_FIRST_TOKEN), row.summed_ms()
    further = record.load.new_tokens - 1
    exact, table4 = row.flops["exact"], row.flops["table4"]
    return EfficiencyRow(
        **names,
        tokens=row.observed.tokens,
        stages_ms={stage: spread(row.times_ms[stage]) for stage in STAGES},
        ttft_ms=spread(first),
        tpot_ms=spread([ms / further for ms in row.times_ms["decode"]]) if further else None,
        total_ms=spread(total),
        ttft_speedup=_ratio(vanilla.summed_ms(BEFORE_FIRST_TOKEN), first),
        total_speedup=_ratio(vanilla.summed_ms(), total),
        exact_tflops=exact.first_token / 1e12,
        table4_tflops=sum(table4.prefill) / 1e12,
        pruner_gflops=exact.pruner / 1e9,
        kv_mib=row.kv_bytes / 2**20,
        peak_mib=None if row.peak_bytes is None else row.peak_bytes / 2**20,
        accuracy=accuracy.get(key_of_measured(record, row)),
    )


def _ratio(vanilla: Sequence[float], own: Sequence[float]) -> float:
    """Compare turn by turn: what slows the machine for a while slows both."""
    return median(a / b for a, b in zip(vanilla, own, strict=True))


def _break_even(rows: Sequence[EfficiencyRow]) -> dict[str, str]:
    vanilla, found = rows[0].ttft_ms, {}
    assert vanilla is not None
    for label in dict.fromkeys(row.pruner for row in rows[1:]):
        own = [row for row in rows if row.pruner == label and row.ttft_ms is not None]
        faster = [row for row in own if row.ttft_ms is not None and row.ttft_ms.median < vanilla.median]
        if own:
            found[label] = max(faster, key=lambda row: row.tokens or 0).budget if faster else "none of those measured"
    return found
