"""What pruning saves and costs: efficiency records in, tables out, each ratio against vanilla in the same run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vtpbench.harness.records.efficiency import EfficiencyRecord
from vtpbench.harness.records.record import DUMMY
from vtpbench.report.efficiency.bound import summary
from vtpbench.report.efficiency.break_even import BreakEven, break_even, elapsed, on_device
from vtpbench.report.efficiency.join import join
from vtpbench.report.efficiency.row import EfficiencyRow, row_of
from vtpbench.report.tables.amounts import GIGA, Operations, significant, unit_for
from vtpbench.report.tables.table import Table


@dataclass(frozen=True)
class EfficiencyTable:
    """One run on one model; the first row is vanilla."""

    title: str
    conditions: Mapping[str, str | int | None]
    """Model, batch, device, dtype, attention kernel, weights and graphs: what tells tables apart, for machines."""
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
    return sorted(records, key=lambda record: (record.model.label, record.load.batch, record.load.graphs, record.created))


def table_of(record: EfficiencyRecord, tables: Sequence[Table] = ()) -> EfficiencyTable:
    """Make the table of one record; see `build`."""
    accuracy = join(record, tables)
    rows = tuple(row_of(record, row, known) for row, known in zip(record.rows, accuracy.values, strict=True))
    model, load, environment = record.model, record.load, record.machine.environment
    weights = ", random weights" if model.weights == DUMMY else ""
    graphs = ", as CUDA graphs" if load.graphs else ""
    title = f"{model.label}, batch {load.batch}{graphs}{weights}" if load.repeats else f"{model.label}, operations of one prompt"
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
            "graphs": "replayed" if load.graphs else "none",
        },
        rows=rows,
        break_even=break_even(rows, elapsed),
        device_break_even=break_even(rows, on_device),
        notes=(*reasons, *_not_replayed(record), *accuracy.notes),
        footer=(*_footer(record, rows), *((("accuracy", accuracy.fact),) if accuracy.fact else ())),
    )


def _not_replayed(record: EfficiencyRecord) -> Iterator[str]:
    """Say what could not be captured, the same reason once for all rows."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in record.rows:
        for name, why in row.not_replayed.items():
            found.setdefault((name, why), []).append(f"{row.pruner.label} @ {row.budget.label}")
    for (name, why), rows in found.items():
        whose = "all rows" if len(rows) == sum(row.status == "ok" for row in record.rows) else ", ".join(rows)
        yield f"{name}: launched, not replayed, in {whose}: {why}"


def _graphs(record: EfficiencyRecord) -> str:
    if not record.load.graphs:
        return "no graphs"
    names = dict.fromkeys(name for row in record.rows for name in row.replayed)
    return f"graphs of {', '.join(names) or 'nothing'}; evidence and cuts inside count as vision and prefill"


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
        return (("counted", f"nothing was run; the cache is of {model.dtype}"), prompt, made, ("made", record.created))
    return (
        *_limits(record, rows),
        ("device", f"{environment.device}, CPU threads: {record.machine.threads}"),
        ("dtype, attention", f"{model.dtype}, {model.attention}, {masks}; no compilation, {_graphs(record)}"),
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
            f"{significant(record.ceilings.gb_per_s, 3)} GB/s in a copy, measured in the same run",
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
