"""Columns of an efficiency table, the same for every format that people read, and the lines below it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vtpbench.harness.records.efficiency import ON_DEVICE
from vtpbench.report.efficiency.break_even import BreakEven
from vtpbench.report.efficiency.row import EfficiencyRow, Spread
from vtpbench.report.efficiency.table import EfficiencyTable
from vtpbench.report.tables.amounts import Operations, milliseconds, significant
from vtpbench.report.tables.layout import NONE

DIGITS = 4
"""Of operations."""


@dataclass(frozen=True)
class Amount:
    """One place of the table; `key` sorts, None last."""

    text: str
    key: float | None = None
    below: str = ""


@dataclass(frozen=True)
class EfficiencyColumn:
    """One quantity with its unit; `times` means times as fast as vanilla."""

    name: str
    unit: str
    of: Callable[[EfficiencyRow], Amount]


TIMES = "x"
"""Unit of a speed-up."""
DEVICE = "device ms (launches)"
"""Unit of what the device did: the time of its kernels together, and how many were launched."""
TOKENS, ACCURACY = "Tokens", "accuracy"


def columns(table: EfficiencyTable) -> tuple[EfficiencyColumn, ...]:
    """List what has a number in any row."""
    operations, of_pruner = table.operations, table.pruner_operations
    found = (
        EfficiencyColumn(TOKENS, "", lambda row: _number(row.tokens, 1)),
        EfficiencyColumn(operations.name, "", lambda row: _operations(row.exact_tflops, operations, 1)),
        EfficiencyColumn(operations.name, "(Table 4)", lambda row: _operations(row.table4_tflops, operations, 1)),
        EfficiencyColumn("pruner", of_pruner.name, lambda row: _operations(row.pruner_gflops, of_pruner, 1e3)),
        *(column for stage in ("vision", "pruner", "prefill") for column in _of_stage(stage)),
        EfficiencyColumn("TTFT", "ms", lambda row: _time(row.ttft_ms)),
        EfficiencyColumn("TTFT", TIMES, lambda row: _number(row.ttft_speedup, 2)),
        EfficiencyColumn("TTFT", DEVICE, lambda row: _on_device(row, *ON_DEVICE)),
        EfficiencyColumn("TTFT on device", TIMES, lambda row: _number(row.device_speedup, 2)),
        EfficiencyColumn("bound by", "", _bound),
        EfficiencyColumn("TPOT", "ms", lambda row: _time(row.tpot_ms)),
        EfficiencyColumn("decode", DEVICE, lambda row: _on_device(row, "decode")),
        EfficiencyColumn("end to end", "ms", lambda row: _time(row.total_ms)),
        EfficiencyColumn("end to end", TIMES, lambda row: _number(row.total_speedup, 2)),
        EfficiencyColumn("questions", "/s", lambda row: _significant(row.questions_per_s, 3)),
        EfficiencyColumn("energy", "J a question", lambda row: _significant(row.joules, 3)),
        EfficiencyColumn("KV", "MiB", lambda row: _significant(row.kv_mib, 3)),
        EfficiencyColumn("peak", "MiB", lambda row: _number(row.peak_mib, 0)),
        EfficiencyColumn(ACCURACY, "%", lambda row: _number(row.accuracy, 1)),
    )
    return tuple(column for column in found if any(column.of(row).key is not None for row in table.rows))


def amounts(row: EfficiencyRow, shown: tuple[EfficiencyColumn, ...]) -> list[Amount]:
    """Fill one row; where nothing could be measured it says so."""
    if row.status != "ok":
        return [Amount(row.status if column.name == TOKENS else NONE) for column in shown]
    return [column.of(row) for column in shown]


def facts(table: EfficiencyTable) -> tuple[tuple[str, str], ...]:
    """Say what stands below a table."""
    shown = ((table.break_even, ""), (table.device_break_even, "in the device's time: "))
    even = "; ".join(f"{kind}{_even(budgets)}" for budgets, kind in shown if budgets)
    invalid = any(budget.within_spread for budget in table.break_even.values())
    meaning = "; within the spread: the quartiles of its ratios to vanilla include 1" * invalid
    line = f"largest with a TTFT speed-up above 1: {even}{meaning}"
    return (("break-even budget", line),) * bool(even) + table.footer


def _even(budgets: Mapping[str, BreakEven]) -> str:
    return ", ".join(f"{pruner} {budget}" for pruner, budget in budgets.items())


def _of_stage(name: str) -> tuple[EfficiencyColumn, EfficiencyColumn]:
    def elapsed(row: EfficiencyRow) -> Amount:
        return _time(None if row.stages_ms is None else row.stages_ms[name])

    return EfficiencyColumn(name, "ms", elapsed), EfficiencyColumn(name, DEVICE, lambda row: _on_device(row, name))


def _on_device(row: EfficiencyRow, *stages: str) -> Amount:
    if row.device_ms is None or row.launches is None:
        return Amount(NONE)
    total = sum(row.device_ms[stage] for stage in stages)
    return Amount(milliseconds(total), total, f"({sum(row.launches[stage] for stage in stages)})")


def _bound(row: EfficiencyRow) -> Amount:
    return Amount(NONE) if row.bound is None else Amount(row.bound.by, row.bound.busy, f"({row.bound.share})")


def _time(value: Spread | None) -> Amount:
    if value is None:
        return Amount(NONE)
    return Amount(milliseconds(value.median), value.median, f"({NONE if value.iqr is None else milliseconds(value.iqr)})")


def _operations(value: float | None, unit: Operations, per_tera: float) -> Amount:
    return _significant(None if value is None else value / per_tera * unit.of_tera, DIGITS)


def _significant(value: float | None, digits: int) -> Amount:
    return Amount(NONE) if value is None else Amount(significant(value, digits), value)


def _number(value: float | None, digits: int) -> Amount:
    return Amount(NONE) if value is None else Amount(f"{value:.{digits}f}", value)
