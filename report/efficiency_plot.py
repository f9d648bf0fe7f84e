"""Time to the first token, and what pruning gains, against the tokens that are left."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure

from vtpbench.report.efficiency import EfficiencyRow, EfficiencyTable

SIZE = (10.0, 4.4)
"""Inches."""
MARKERS = "osD^vPX*<>hp"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Told apart also with colour-blind eyes; markers differ as well (Okabe and Ito)."""


def plot(tables: Sequence[EfficiencyTable], format_name: Literal["png", "svg"] = "png") -> bytes:
    """Draw tables one below the other: a line per pruner through its budgets, vanilla as a dashed line."""
    width, height = SIZE
    figure = Figure(figsize=(width, height * len(tables)), dpi=150, facecolor="white", layout="constrained")
    for part, table in zip(figure.subfigures(len(tables), squeeze=False)[:, 0], tables, strict=True):
        _draw(part, table)
    stream = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(stream, format=format_name, metadata={"Date": None} if format_name == "svg" else None)
    return stream.getvalue()


def _draw(figure: SubFigure, table: EfficiencyTable) -> None:
    left, right = figure.subplots(1, 2)
    vanilla, *pruned = [row for row in table.rows if row.status == "ok"]
    labels = dict.fromkeys(row.pruner for row in pruned)
    for number, label in enumerate(labels):
        own = sorted((row for row in pruned if row.pruner == label), key=lambda row: row.tokens or 0)
        _line(left, right, label, own, number)
    assert vanilla.ttft_ms is not None
    most = max((row.tokens or 0.0 for row in pruned), default=1.0) or 1.0
    for axes, level in ((left, vanilla.ttft_ms.median), (right, 1.0)):
        axes.axhline(level, color="0.4", linestyle="--", linewidth=1)
        axes.annotate(
            "vanilla", (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", color="0.4", fontsize=8
        )
        axes.set_xlabel("vision tokens per decoder layer, observed")
        axes.set_xlim(-0.05 * most, 1.1 * most)  # from no token on: a single budget is a place, not an axis of its own
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
    left.set_ylabel("time to first token, ms (median, quartiles)")
    left.set_ylim(bottom=0)
    right.set_ylabel("speed-up of the first token over vanilla")
    figure.suptitle(table.title, fontsize=11)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)


def _line(left: Axes, right: Axes, label: str, rows: Sequence[EfficiencyRow], number: int) -> None:
    style: dict[str, Any] = {
        "label": label,
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 5,
        "linewidth": 1.3,
    }
    tokens = [row.tokens or 0.0 for row in rows]
    times = [row.ttft_ms for row in rows if row.ttft_ms is not None]
    errors = [[time.median - time.low for time in times], [time.high - time.median for time in times]]
    left.errorbar(tokens, [time.median for time in times], yerr=errors, capsize=2, **style)
    right.plot(tokens, [row.ttft_speedup or 0.0 for row in rows], **style)
