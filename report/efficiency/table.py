"""What pruning saves and costs: efficiency records in, tables out, each ratio against vanilla in the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from vtpbench.harness.records.efficiency import BEFORE_FIRST_TOKEN, ON_DEVICE, STAGES, EfficiencyRecord, Measured
from vtpbench.harness.records.record import DUMMY
from vtpbench.report.efficiency.bound import Bound, bound, summary
from vtpbench.report.efficiency.join import join
from vtpbench.report.tables.amounts import GIGA, Operations, significant, unit_for
from vtpbench.report.tables.table import Table

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


@dataclass(frozen=True)
class BreakEven:
    """Where pruning begins to pay."""

    budget: str | None
    """Largest that brings the first token earlier than vanilla does; None = none of those measured."""
    within_spread: bool = False
    """Whether the quartiles of its speed-up include 1."""

    def __str__(self) -> str:
        return f"{self.budget or 'none of those measured'}{' (within the spread)' * self.within_spread}"


@dataclass(frozen=True)
class EfficiencyTable:
    """One run on one model; the first row is vanilla."""

    title: str
    conditions: Mapping[str, str | int | None]
    """Model, batch, device, dtype, attention kernel and weights: what tells tables apart, for machines."""
    rows: tuple[EfficiencyRow, ...]
    break_even: Mapping[str, BreakEven]
    """By the pruner's label, in elapsed time."""
    device_break_even: Mapping[str, BreakEven]
    """The same in the device's time; empty where that was not watched."""
    notes: tuple[str, ...]
    footer: tuple[tuple[str, str], ...]

    @property
    def operations(self) -> Operations:
        """Unit for what a model computes, of all rows."""
        return unit_for(self.rows[0].exact_tflops or 0)

    @property
    def pruner_operations(self) -> Operations:
        """Unit for what pruners compute, of all rows."""
        return unit_for(max(row.pruner_gflops or 0 for row in self.rows) / GIGA.of_tera, GIGA)


def build(records: Iterable[EfficiencyRecord], tables: Sequence[Table] = ()) -> list[EfficiencyTable]:
    """Make a table of each record; accuracy stands beside where `tables` have the same model, pruner and budget."""
    return [table_of(record, tables) for record in ordered(records)]


def ordered(records: Iterable[EfficiencyRecord]) -> list[EfficiencyRecord]:
    """Sort records in the order in which a report shows them."""
    return sorted(records, key=lambda record: (record.model.label, record.load.batch, record.created))


def spread(values: Sequence[float]) -> Spread:
    """Describe repeated values by median and interquartile range."""
    if len(values) < 2:
        return Spread(median(values), median(values), median(values), 0, 1)
    low, middle, high = quantiles(values, n=4, method="inclusive")
    reach = FENCE * (high - low)
    return Spread(middle, low, high, sum(value < low - reach or value > high + reach for value in values), len(values))


def table_of(record: EfficiencyRecord, tables: Sequence[Table] = ()) -> EfficiencyTable:
    """Make the table of one record; see `build`."""
    accuracy = join(record, tables)
    rows = tuple(_row(record, row, known) for row, known in zip(record.rows, accuracy.values, strict=True))
    model, load, environment = record.model, record.load, record.machine.environment
    title = f"{model.label}, batch {load.batch}" + (", random weights" if model.weights == DUMMY else "")
    reasons = (f"{row.pruner} @ {row.budget}: {row.status}: {row.reason}" for row in rows if row.status != "ok")
    return EfficiencyTable(
        title=title,
        conditions={
            "model": model.label,
            "batch": load.batch,
            "device": environment.device,
            "dtype": model.dtype,
            "attention": model.attention,
            "weights": model.weights,
            "tower": model.tower,
        },
        rows=rows,
        break_even=_break_even(rows, _elapsed),
        device_break_even=_break_even(rows, _on_device),
        notes=(*reasons, *accuracy.notes),
        footer=(*_footer(record, rows), *((("accuracy", accuracy.fact),) if accuracy.fact else ())),
    )


def _footer(record: EfficiencyRecord, rows: Sequence[EfficiencyRow]) -> tuple[tuple[str, str], ...]:
    model, load, environment = record.model, record.load, record.machine.environment
    versions = {**environment.versions, "driver": record.machine.driver}
    masked = {row.masked_layers for row in record.rows if row.status == "ok"}
    masks = "the same mask in all rows" if len(masked) == 1 else "rows differ in layers with an explicit mask"
    prompt = (
        "prompt",
        f"{load.picture[0]} x {load.picture[1]} pixels, {_text_tokens(record)} text tokens, {load.new_tokens} new",
    )
    made = ("versions", ", ".join(f"{name} {value}" for name, value in versions.items() if value))
    if not load.repeats:
        return (("counted", f"operations of one prompt, nothing was run; {model.dtype}"), prompt, made, ("made", record.created))
    return (
        *_limits(record, rows),
        ("device", f"{environment.device}, CPU threads: {record.machine.threads}"),
        ("dtype, attention", f"{model.dtype}, {model.attention}, {masks}; no compilation, no graphs"),
        prompt,
        *((("times and memory", f"batch of {load.batch}; operations: one prompt"),) if load.batch > 1 else ()),
        ("times", _times(record, rows)),
        made,
        ("measured", record.created),
    )


def _limits(record: EfficiencyRecord, rows: Sequence[EfficiencyRow]) -> Iterator[tuple[str, str]]:
    """Say what holds rows back, and by what that was judged."""
    sentence = summary([row.bound for row in rows], [row.decode_bound for row in rows])
    if sentence and record.ceilings is not None:
        yield "what holds rows back", sentence
        yield (
            "ceilings",
            f"{significant(record.ceilings.tflops_per_s, 3)} TFLOP/s in a matrix product, "
            f"{significant(record.ceilings.gb_per_s, 3)} GB/s in a copy, measured in the same run; device: one run",
        )


def _text_tokens(record: EfficiencyRecord) -> str:
    """Count vanilla's, and those of pruners that leave some out."""
    usual = record.rows[0].text_tokens
    others = {row.pruner.label: row.text_tokens for row in record.rows if row.status == "ok" and row.text_tokens != usual}
    return f"{usual}{' (' * bool(others)}{', '.join(f'{label}: {n}' for label, n in others.items())}{')' * bool(others)}"


def _times(record: EfficiencyRecord, rows: Sequence[EfficiencyRow]) -> str:
    repeats = record.load.repeats
    shown = "median (interquartile range)" if repeats > 1 else "no spread is known"
    outliers = sum(row.total_ms.outliers for row in rows if row.total_ms is not None)
    far = f"; {outliers} outlier{'s' * (outliers != 1)} among the end-to-end times, none left out" if outliers else ""
    return f"{repeats} repeat{'s' * (repeats != 1)}, all rows in turn, after {record.load.warmup} for warming up; {shown}{far}"


def _row(record: EfficiencyRecord, row: Measured, accuracy: float | None) -> EfficiencyRow:
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


def _elapsed(row: EfficiencyRow) -> tuple[float, float] | None:
    """Speed-up of the first token, and its lower quartile."""
    return None if row.ttft_speedup is None else (row.ttft_speedup, row.ttft_speedup_low or 0)


def _on_device(row: EfficiencyRow) -> tuple[float, float] | None:
    """Speed-up in the device's time, of which no spread is known."""
    return None if row.device_speedup is None else (row.device_speedup, row.device_speedup)


def _break_even(
    rows: Sequence[EfficiencyRow], speedup: Callable[[EfficiencyRow], tuple[float, float] | None]
) -> dict[str, BreakEven]:
    """Look among the rows that have fewer tokens than vanilla, by a speed-up that the table shows."""
    found = {}
    for label in dict.fromkeys(row.pruner for row in rows[1:]):
        fewer = [row for row in rows[1:] if row.pruner == label and row.tokens is not None and row.tokens < (rows[0].tokens or 0)]
        known = [(row, *gain) for row in fewer if (gain := speedup(row)) is not None]
        paying = [(row, low) for row, gain, low in known if gain > 1]
        best = max(paying, key=lambda found: found[0].tokens or 0, default=None)
        if known:
            found[label] = BreakEven(None) if best is None else BreakEven(best[0].budget, best[1] <= 1)
    return found
