"""Time to the first token, and what pruning gains, against the tokens that are left; questions a second against the batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from vtpbench.pruners.errors import UserError
from vtpbench.report.efficiency.row import EfficiencyRow
from vtpbench.report.efficiency.table import EfficiencyTable
from vtpbench.report.efficiency.throughput import Throughput, throughputs
from vtpbench.report.tables.figure_file import figure_file
from vtpbench.report.tables.names import styles
from vtpbench.report.tables.palette import line_style

SIZE = (10.0, 4.4)
"""Inches."""


def plot(tables: Sequence[EfficiencyTable], format_name: str = "png") -> bytes:
    """Draw tables one below the other: a line per pruner through its budgets, vanilla as a dashed line.

    Below them stands what a model answers at several batches, where it was measured. Raises `UserError` where nothing was timed.
    """
    width, height = SIZE
    timed, curves = [table for table in tables if table.rows[0].ttft_ms is not None], throughputs(tables)
    if not timed:
        raise UserError("operations were counted, and nothing was run against the clock: there is nothing to draw")
    parts = [*(partial(_draw, table) for table in timed), *(partial(_draw_batches, each) for each in curves)]
    figure = Figure(figsize=(width, height * len(parts)), dpi=150, facecolor="white", layout="constrained")
    for part, draw in zip(figure.subfigures(len(parts), squeeze=False)[:, 0], parts, strict=True):
        draw(part)
    return figure_file(figure, format_name)


def _draw(table: EfficiencyTable, figure: SubFigure) -> None:
    left, right = figure.subplots(1, 2)
    vanilla, *pruned = [row for row in table.rows if row.status == "ok"]
    for label, number in styles((row.pruner, row.name) for row in pruned).items():
        own = sorted((row for row in pruned if row.pruner == label), key=lambda row: row.tokens or 0)
        _line(left, right, label, own, number)
    assert vanilla.ttft_ms is not None
    most = max((row.tokens or 0.0 for row in pruned), default=1.0) or 1.0
    for axes, level in ((left, vanilla.ttft_ms.median), (right, 1.0)):
        axes.axhline(level, color="0.4", linestyle="--", linewidth=1)
        axes.annotate("vanilla", (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", color="0.4", fontsize=8)
        axes.set_xlabel("vision tokens per decoder layer, observed")
        axes.set_xlim(-0.05 * most, 1.2 * most)  # from no token on; at the right is room for the name of vanilla's line
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
    left.set_ylabel("time to first token, ms (median, quartiles)")
    left.set_ylim(bottom=0)
    right.set_ylabel("speed-up of the first token over vanilla")
    figure.suptitle(f"{table.title}\n{table.conditions['device']}, {table.conditions['dtype']}", fontsize=11)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)


def _draw_batches(measured: Throughput, figure: SubFigure) -> None:
    """Draw a panel for each budget, a line per pruner through the batches."""
    panels = figure.subplots(1, max(1, len(measured.budgets)), sharey=True, squeeze=False)[0]
    vanilla, *pruned = measured.curves
    numbers = styles((curve.pruner, curve.name) for curve in pruned)
    for axes, budget in zip(panels, measured.budgets or ("",), strict=True):
        dashed = {"color": "0.4", "linestyle": "--", "linewidth": 1, "marker": ".", "label": "vanilla"}
        for curve, style in [
            (vanilla, dashed),
            *((c, line_style(c.pruner, numbers[c.pruner])) for c in pruned if c.budget == budget),
        ]:
            axes.plot(list(curve.by_batch), [row.questions_per_s or 0.0 for row in curve.by_batch.values()], **style)
        axes.set_xscale("log", base=2)
        axes.set_xticks(measured.batches, labels=[str(batch) for batch in measured.batches])
        axes.set_xlabel("prompts at once")
        axes.set_title(f"budget {budget}" if budget else "", fontsize=9)
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
    panels[0].set_ylabel("questions a second, end to end")
    panels[0].set_ylim(bottom=0)
    figure.suptitle(f"{measured.title}\n{measured.conditions['device']}, {measured.conditions['dtype']}", fontsize=11)
    lines = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(list(lines.values()), list(lines), loc="outside right upper", fontsize=8, frameon=False)


def _line(left: Axes, right: Axes, label: str, rows: Sequence[EfficiencyRow], number: int) -> None:
    style = line_style(label, number)
    tokens = [row.tokens or 0.0 for row in rows]
    times = [row.ttft_ms for row in rows if row.ttft_ms is not None]
    errors = [[time.median - time.low for time in times], [time.high - time.median for time in times]]
    left.errorbar(tokens, [time.median for time in times], yerr=errors, capsize=2, **style)
    right.plot(tokens, [row.ttft_speedup or 0.0 for row in rows], **style)
