"""A table as a leaderboard: its averages alone, the best first, with what they cost and whether they were verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vtpbench.report.html.costs import Axis, axes
from vtpbench.report.html.view import Line, Section, ShownRow
from vtpbench.report.site.facts import CHECKS, Check
from vtpbench.report.site.site_table import FindOrigin, SiteTable, check_of, with_lines
from vtpbench.report.tables.layout import NONE, CellText

SHOWN_COSTS = ("exact", "ttft")
"""Costs that have a column: operations and time to the first token."""
VERIFIED = "Verified"


def board(results: SiteTable, methods: str, origin: FindOrigin) -> Section:
    """Shorten a table to Tokens, Avg, n, costs, and, where anything was, what was verified; `methods` is their folder."""
    part = results.linked(methods)
    rows = [line.row for _, line in results.lines]
    known = [axis for axis in axes(rows, results.profiles) if axis.key.partition("-")[0] in SHOWN_COSTS]
    checks = {line.id: check_of(line.row, results.vanilla, origin) for _, line in results.lines}
    checked = any(check is not None for check in checks.values())
    header = ("Pruner", "Tokens", "Avg", "n", *(axis.label for axis in known), *([VERIFIED] if checked else []))

    def short(line: Line) -> Line:
        return _short(line, known, (_check(checks[line.id]),) if checked else ())

    averages = with_lines(part, lambda lines: sorted((short(line) for line in lines), key=_rank))
    costs = frozenset(axis.label for axis in known)
    return replace(averages, header=header, average=header.index("Avg"), has_lengths=False, rising=costs)


def _rank(line: Line) -> float:
    return float("inf") if line.row.average is None else -line.row.average


def _short(line: Line, known: Sequence[Axis], more: Sequence[ShownRow]) -> Line:
    name, tokens, *_, average, n = line.shown
    plain = replace(average, place=replace(average.place, text=_average(line, average.place.text), notes=()))
    return replace(line, shown=(name, tokens, plain, n, *(_cost(axis, line) for axis in known), *more))


def _average(line: Line, text: str) -> str:
    """Say why there is no average where that is the same on every benchmark."""
    statuses = {entry.status for entry in line.row.entries}
    return statuses.pop() if line.row.average is None and len(statuses) == 1 and statuses != {"ok"} else text


def _cost(axis: Axis, line: Line) -> ShownRow:
    cost = axis.cost(line.row)
    text, _, spread = ("", "", "") if cost is None else cost.text.partition(" (")
    return ShownRow(CellText(text or NONE, spread.rstrip(")")), None if cost is None else cost.value)


def _check(check: Check | None) -> ShownRow:
    return ShownRow(CellText("no" if check is None else CHECKS[check]), None if check is None else list(CHECKS).index(check))
