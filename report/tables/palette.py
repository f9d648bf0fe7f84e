"""Colours and shapes of drawn pruners, by the numbers that `vtpbench.report.tables.names.styles` gives; the page has the same."""

from __future__ import annotations

from typing import Any

MARKERS: tuple[Any, ...] = (*"os^Dv", "P", "p", "X", "*", "<", ">", "h", "d", (4, 1, 0), (3, 1, 0))
COLOURS = (
    *("#76808a", "#0072b2", "#c04a00", "#379251", "#7742ef", "#910739", "#8f8f0b", "#995d66"),
    *("#4e3004", "#025032", "#640b41", "#232fa0", "#4c7044", "#490184", "#303260"),
)
"""The first of both is random's. The others are as far apart as 14 can be for eyes of any kind; the page has the same ones."""


def line_style(label: str, number: int) -> dict[str, Any]:
    """Give the arguments of matplotlib's `plot` for a pruner."""
    return {
        "label": label,
        "color": COLOURS[number and (number - 1) % (len(COLOURS) - 1) + 1],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 6,
        "linewidth": 1.3,
    }
