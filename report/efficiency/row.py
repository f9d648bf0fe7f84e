"""One row of an efficiency table: what was measured of a pruner at a budget, beside vanilla in the same run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from vtpbench.harness.records.efficiency import BEFORE_FIRST_TOKEN, ON_DEVICE, STAGES, EfficiencyRecord, Measured
from vtpbench.report.efficiency.bound import Bound, bound

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
    repeats: int

    @property
    def iqr(self) -> float | None:
        """Interquartile range; a single value has none."""
        return self.high - self.low if self.repeats > 1 else None


@dataclass(frozen=True)
class EfficiencyRow:
    """One pruner at one budget; times in milliseconds for the whole batch, operations for one prompt."""

    pruner: str
    """Its label."""
    name: str
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
    ttft_speedup_low: float | None = None
    ttft_speedup_high: float | None = None
    """Quartiles of the same ratios."""
    total_speedup: float | None = None
    total_speedup_low: float | None = None
    total_speedup_high: float | None = None
    exact_tflops: float | None = None
    """Up to the first token: tower, pruner, projector, prefill, `lm_head`."""
    table4_tflops: float | None = None
    """Of the prefill, as the papers count it; the pruner is not in it."""
    pruner_gflops: float | None = None
    device_ms: Mapping[str, float] | None = None
    """By stage: time of the kernels together, in one run."""
    launches: Mapping[str, int] | None = None
    """By stage."""
    device_ttft_ms: float | None = None
    """Of the stages that a device does before the first token."""
    device_speedup: float | None = None
    """Vanilla's time of that kind, divided by this row's."""
    bound: Bound | None = None
    """What holds back those stages."""
    decode_bound: Bound | None = None
    questions_per_s: float | None = None
    """Prompts of the batch, divided by the end to end time."""
    joules: float | None = None
    """For one question, end to end."""
    kv_mib: float | None = None
    peak_mib: float | None = None
    accuracy: float | None = None
    """Per cent of vanilla's accuracy, mean over benchmarks, where it was measured."""


def spread(values: Sequence[float]) -> Spread:
    """Describe repeated values by median and interquartile range."""
    if len(values) < 2:
        return Spread(median(values), median(values), median(values), 0, 1)
    low, middle, high = quantiles(values, n=4, method="inclusive")
    reach = FENCE * (high - low)
    return Spread(middle, low, high, sum(value < low - reach or value > high + reach for value in values), len(values))


def row_of(record: EfficiencyRecord, row: Measured, accuracy: float | None) -> EfficiencyRow:
    """Make a row of what a record has of it; `accuracy` in per cent, where it is known."""
    names: dict[str, Any] = {"pruner": row.pruner.label, "name": row.pruner.name, "budget": row.budget.label}
    names["status"] = row.status
    if row.observed is None:
        return EfficiencyRow(**names, reason=row.reason or "")
    exact, table4 = row.flops["exact"], row.flops["table4"]
    return EfficiencyRow(
        **names,
        **(_timed(record, row) if record.load.repeats else {}),
        **(_watched(record, row) if row.work else {}),
        tokens=row.observed.tokens,
        exact_tflops=exact.of(BEFORE_FIRST_TOKEN) / 1e12,
        table4_tflops=sum(table4.prefill) / 1e12,
        pruner_gflops=exact.pruner / 1e9,
        joules=row.joules,
        kv_mib=row.kv_bytes / 2**20,
        peak_mib=None if row.peak_bytes is None else row.peak_bytes / 2**20,
        accuracy=accuracy,
    )


def _timed(record: EfficiencyRecord, row: Measured) -> dict[str, Any]:
    """State what the clock says."""
    vanilla, first, total = record.rows[0], row.summed_ms(BEFORE_FIRST_TOKEN), row.summed_ms()
    sooner, faster = _ratios(vanilla.summed_ms(BEFORE_FIRST_TOKEN), first), _ratios(vanilla.summed_ms(), total)
    further = record.load.new_tokens - 1
    return {
        "stages_ms": {stage: spread(row.times_ms[stage]) for stage in STAGES},
        "ttft_ms": spread(first),
        "tpot_ms": spread([ms / further for ms in row.times_ms["decode"]]) if further else None,
        "total_ms": spread(total),
        "ttft_speedup": sooner.median,
        "ttft_speedup_low": sooner.low,
        "ttft_speedup_high": sooner.high,
        "total_speedup": faster.median,
        "total_speedup_low": faster.low,
        "total_speedup_high": faster.high,
        "questions_per_s": 1000 * record.load.batch / median(total),
    }


def _watched(record: EfficiencyRecord, row: Measured) -> dict[str, Any]:
    """State what the device did."""
    own, vanilla = row.summed_work(ON_DEVICE), record.rows[0].summed_work(ON_DEVICE)
    assert own is not None, "the row was watched"
    ceilings, batch = record.ceilings, record.load.batch
    return {
        "device_ms": {stage: row.work[stage].device_ms for stage in STAGES},
        "launches": {stage: row.work[stage].launches for stage in STAGES},
        "device_ttft_ms": own.device_ms,
        "device_speedup": vanilla.device_ms / own.device_ms if vanilla is not None and own.device_ms else None,
        "bound": bound(row, ceilings, batch, ON_DEVICE),
        "decode_bound": bound(row, ceilings, batch, ("decode",)) if record.load.new_tokens > 1 else None,
    }


def _ratios(vanilla: Sequence[float], own: Sequence[float]) -> Spread:
    """Compare turn by turn: what slows the machine for a while slows both."""
    return spread([a / b for a, b in zip(vanilla, own, strict=True)])
