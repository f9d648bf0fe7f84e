"""Accuracy against what it costs, for one column of a paper: against tokens, and against time where it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import NullFormatter

from vtpbench.pruners.errors import UserError
from vtpbench.report.html.costs import Axis, Profile, axes, is_denominator
from vtpbench.report.plots.dodge import dodge
from vtpbench.report.tables.figure_file import figure_file
from vtpbench.report.tables.layout import clean
from vtpbench.report.tables.names import styles
from vtpbench.report.tables.palette import line_style
from vtpbench.report.tables.table import Block, Table, TableRow

WIDTH, PANEL, LEGEND_LINE, TITLE = 3.3, 2.3, 0.13, 0.25
"""Inches: a column of the usual two-column styles; height of a panel, of a line of the legend, of the title."""
SMALL, TINY = 7, 6
"""Points of text."""
IN_LEGEND = 3
"""Names beside each other."""
IN_TITLE = 60
"""Characters of a line of the title."""
COSTS = ("tokens", "ttft")
"""Costs that are drawn, by how their keys begin."""


@dataclass(frozen=True)
class _Point:
    """A row at one budget, as it is drawn; accuracies in per cent of vanilla."""

    tokens: float
    cost: float
    average: float
    interval: tuple[float, float] | None
    whole: bool
    """Whether its average has as many benchmarks as any."""


def plot_accuracy(tables: Sequence[Table], profiles: Sequence[Profile] = (), format_name: str = "png") -> bytes:
    """Draw each table below the other: a line per pruner through its budgets, with 95 % intervals where there are any.

    Points of one cost stand beside each other, so that equal ones are all seen. A row whose average lacks benchmarks is hollow
    and on no line.

    Raises
    ------
    UserError
        No row has both an average and a cost.

    """
    found = [(table, costs) for table in tables if (costs := _costs(table, profiles))]
    if not found:
        raise UserError("no measured row has an average accuracy: there is nothing to draw; name a suite or a folder of results")
    heights = [TITLE + PANEL * len(costs) + LEGEND_LINE * -(-(len(_numbers(table)) + 1) // IN_LEGEND) for table, costs in found]
    figure = Figure(
        figsize=(WIDTH, sum(heights)), dpi=300, facecolor="white", layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02)
    )
    parts = figure.subfigures(len(found), squeeze=False, height_ratios=heights)[:, 0]
    for part, (table, costs) in zip(parts, found, strict=True):
        _draw(part, table, costs)
    return figure_file(figure, format_name)


def _costs(table: Table, profiles: Sequence[Profile]) -> list[Axis]:
    pruned = _pruned(table)
    return [axis for axis in axes(pruned, profiles) if axis.key.split("-")[0] in COSTS] if pruned else []


def _numbers(table: Table) -> dict[str, int]:
    return styles((row.label, next(r.pruner.name for e in row.entries for r in e.records)) for row in _pruned(table))


def _pruned(table: Table) -> list[TableRow]:
    """Rows that were measured and have an average, but for vanilla's."""
    rows = [row for block in table.blocks for row in block.rows if row.average is not None and not is_denominator(row)]
    return [row for row in rows if any(r.observed and r.observed.images for e in row.entries for r in e.records)]


def _draw(figure: SubFigure, table: Table, costs: Sequence[Axis]) -> None:
    panels = figure.subplots(len(costs), 1, squeeze=False)[:, 0]
    for axes_, cost in zip(panels, costs, strict=True):
        _panel(axes_, table, cost)
    figure.suptitle(fill(clean(table.title), IN_TITLE), fontsize=SMALL)
    lines = {label: line for axes_ in panels for line, label in zip(*axes_.get_legend_handles_labels(), strict=True)}
    figure.legend(
        [*lines.values()], [*lines], loc="outside lower center", ncols=IN_LEGEND, fontsize=TINY, frameon=False,
        handlelength=1.6, columnspacing=1.0, labelspacing=0.25, borderpad=0.1, handletextpad=0.5,
    )  # fmt: skip


def _panel(axes_: Axes, table: Table, cost: Axis) -> None:
    points = _points(table, cost)
    width = _span([point.cost for own in points.values() for point in own], cost.logarithmic)
    moved = dodge(
        {label: [_scaled(p.cost, cost) for p in own] for label, own in points.items()}, near=width / 100, step=width / 75
    )
    numbers = _numbers(table)
    for label, own in points.items():
        places = [10**x if cost.logarithmic else x for x in moved[label]]
        style = line_style(clean(label), numbers[label]) | {"markersize": 3.4, "linewidth": 0.7}
        _line(axes_, places, own, style)
    axes_.axhline(100, color="0.35", linestyle=(0, (4, 3)), linewidth=0.7, zorder=1, label="vanilla")
    _scales(axes_, table, cost, points)


def _line(axes_: Axes, places: Sequence[float], points: Sequence[_Point], style: dict[str, Any]) -> None:
    """Draw the points of a pruner, those over all benchmarks joined."""
    averages = [p.average for p in points]
    low = [0.0 if p.interval is None else max(0.0, p.average - p.interval[0]) for p in points]
    high = [0.0 if p.interval is None else max(0.0, p.interval[1] - p.average) for p in points]
    colour = style["color"]
    axes_.errorbar(places, averages, yerr=[low, high], fmt="none", ecolor=colour, elinewidth=0.5, alpha=0.55, zorder=2)
    whole = [i for i, p in enumerate(points) if p.whole]
    axes_.plot([places[i] for i in whole], [averages[i] for i in whole], markeredgewidth=0, zorder=3, **style)
    for i in (i for i, p in enumerate(points) if not p.whole):
        axes_.plot(places[i], averages[i], **style | {"markerfacecolor": "white", "label": None}, markeredgewidth=0.7, zorder=3)


def _scales(axes_: Axes, table: Table, cost: Axis, points: dict[str, list[_Point]]) -> None:
    axes_.set_xlabel(cost.label, fontsize=SMALL)
    intervals = any(p.interval for own in points.values() for p in own)
    axes_.set_ylabel(f"Avg, % of vanilla{' (95 % intervals)' if intervals else ''}", fontsize=SMALL)
    if cost.logarithmic:
        axes_.set_xscale("log")
        ticks = _budgets(table.blocks, cost)
        axes_.set_xticks(ticks, labels=[f"{tick:.0f}" for tick in ticks])
        axes_.xaxis.set_minor_formatter(NullFormatter())
        axes_.tick_params(axis="x", which="minor", length=0)
    axes_.tick_params(labelsize=TINY, width=0.5, length=2.5)
    axes_.grid(color="0.92", linewidth=0.5)
    axes_.set_axisbelow(True)
    for spine in axes_.spines.values():
        spine.set_linewidth(0.5)


def _budgets(blocks: Sequence[Block], cost: Axis) -> list[float]:
    """Place a tick at the largest cost of each block: for tokens, its budget."""
    tops = [
        max((c.value for row in block.rows if not is_denominator(row) and (c := cost.cost(row))), default=0.0) for block in blocks
    ]
    return sorted({round(top) for top in tops if top > 0})


def _points(table: Table, cost: Axis) -> dict[str, list[_Point]]:
    """Points of each pruner, those of the smallest budget first."""
    found: dict[str, list[_Point]] = {}
    most = max(row.n for block in table.blocks for row in block.rows)
    for row in _pruned(table):
        value = cost.cost(row)
        if row.average is not None and value is not None and value.value > 0:
            point = _Point(row.observed or 0.0, value.value, row.average, row.average_interval, row.n == most)
            found.setdefault(row.label, []).append(point)
    return {label: sorted(own, key=lambda p: p.tokens) for label, own in found.items()}


def _scaled(value: float, cost: Axis) -> float:
    return log10(value) if cost.logarithmic else value


def _span(values: Sequence[float], logarithmic: bool) -> float:
    scaled = [log10(value) if logarithmic else value for value in values]
    return (max(scaled) - min(scaled) or 1.0) if scaled else 1.0
