"""What the page shows of efficiency records: a table and a chart each, with the colours and shapes of the tables of accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vtpbench.report.efficiency import EfficiencyRow, Spread, milliseconds
from vtpbench.report.html.costs import Operations, Profile
from vtpbench.report.html.times import choices, point
from vtpbench.report.layout import NONE, clean


@dataclass(frozen=True)
class Amount:
    """One place of the table; `key` sorts, None last."""

    text: str
    key: float | str | None
    below: str = ""


@dataclass(frozen=True)
class SpeedLine:
    """One row; `pruner` is the number of its colour and shape, -1 = vanilla."""

    id: str
    pruner: int
    label: str
    amounts: tuple[Amount, ...]


@dataclass(frozen=True)
class SpeedSection:
    """One efficiency record; `facts` are names and texts."""

    id: str
    title: str
    header: tuple[tuple[str, str], ...]
    """Names of columns, and how a first click sorts them: best first."""
    lines: tuple[SpeedLine, ...]
    pruners: tuple[tuple[int, str], ...]
    """Number and label of each pruner, vanilla first."""
    choices: list[dict[str, str]]
    points: list[dict[str, Any]]
    """Empty where vanilla stands alone."""
    notes: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


def _number(value: float | None, digits: int) -> Amount:
    return Amount(NONE, None) if value is None else Amount(f"{value:.{digits}f}", value)


def _operations(value: float | None, scale: float) -> Amount:
    return Amount(NONE, None) if value is None else Amount(f"{scale * value:.4g}", value)


def _time(value: Spread | None) -> Amount:
    if value is None:
        return Amount(NONE, None)
    return Amount(milliseconds(value.median), value.median, f"({milliseconds(value.iqr)})")


def _stage(name: str) -> Callable[[EfficiencyRow], Amount]:
    return lambda row: _time(None if row.stages_ms is None else row.stages_ms[name])


def _columns(unit: Operations) -> dict[str, Callable[[EfficiencyRow], Amount]]:
    return {
        "Accuracy %": lambda row: _number(row.accuracy, 1),
        "Tokens": lambda row: _number(row.tokens, 1),
        unit.name: lambda row: _operations(row.exact_tflops, unit.of_tera),
        f"{unit.name} (Table 4)": lambda row: _operations(row.table4_tflops, unit.of_tera),
        "TTFT ms": lambda row: _time(row.ttft_ms),
        "TTFT speed-up": lambda row: _number(row.ttft_speedup, 2),
        "End to end ms": lambda row: _time(row.total_ms),
        "End to end speed-up": lambda row: _number(row.total_speedup, 2),
        "TPOT ms": lambda row: _time(row.tpot_ms),
        "Vision ms": _stage("vision"),
        "Pruner ms": _stage("pruner"),
        "Prefill ms": _stage("prefill"),
        "Pruner GFLOPs": lambda row: _operations(row.pruner_gflops, 1),
        "KV MiB": lambda row: _number(row.kv_mib, 1),
        "Peak MiB": lambda row: _number(row.peak_mib, 0),
    }


def speed_section(profile: Profile, name: str, numbers: Mapping[str, int]) -> SpeedSection:
    """Prepare a table; `name` starts its ids, `numbers` are those of pruners that the page has shown already."""
    rows = profile.table.rows
    further = dict.fromkeys(label for row in rows[1:] if (label := clean(row.pruner)) not in numbers)
    first = max(numbers.values(), default=-1) + 1
    styles = {**numbers, **{label: first + i for i, label in enumerate(further)}, clean(rows[0].pruner): -1}
    columns = _columns(profile.operations).items()
    shown = {column: of for column, of in columns if any(of(row).key is not None for row in rows)}
    lines = tuple(
        _line(row, f"{name}-{number}", styles[clean(row.pruner)], profile.budget_tokens(number), list(shown.values()))
        for number, row in enumerate(rows)
    )
    points = [point(row, line.id, line.pruner) for row, line in zip(rows, lines, strict=True)]
    even = ", ".join(f"{pruner} {budget}" for pruner, budget in profile.table.break_even.items())
    facts = (("break-even budget", f"largest with a TTFT below vanilla's: {even}"),) * bool(even) + profile.table.footer
    return SpeedSection(
        id=name,
        title=f"Efficiency: {clean(profile.table.title)}",
        header=(("Pruner", "ascending"), *((name, _first(name)) for name in ("Budget", *shown))),
        lines=lines,
        pruners=tuple({line.pruner: line.label for line in lines}.items()),
        choices=choices(rows),
        points=points if any(row.status == "ok" for row in rows[1:]) else [],
        notes=tuple(map(clean, profile.table.notes)),
        facts=facts,
    )


def _first(name: str) -> str:
    return "descending" if name.startswith("Accuracy") or name.endswith(("speed-up", "Budget")) else "ascending"


def _line(
    row: EfficiencyRow, name: str, number: int, budget: float, columns: Sequence[Callable[[EfficiencyRow], Amount]]
) -> SpeedLine:
    amounts = [of(row) for of in columns]
    if row.status != "ok":
        amounts = [Amount(row.status, None), *(Amount("", None) for _ in columns[1:])]
    return SpeedLine(name, number, clean(row.pruner), (Amount(clean(row.budget), budget), *amounts))
