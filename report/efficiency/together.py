"""Answers and efficiency in one output."""

from __future__ import annotations

import json
from collections.abc import Sequence

from vtpbench.report.efficiency.latex import parts
from vtpbench.report.efficiency.table import EfficiencyTable
from vtpbench.report.efficiency.text import as_objects
from vtpbench.report.efficiency.text import render as render_efficiency
from vtpbench.report.formats.data import cells
from vtpbench.report.formats.latex import latex
from vtpbench.report.formats.render import render
from vtpbench.report.tables.table import Table


def together(tables: Sequence[Table], efficiency: Sequence[EfficiencyTable], format_name: str) -> str:
    """Print tables of either kind, or both: as JSON by the names `cells` and `efficiency`, else one kind after the other.

    Raises `UserError` for an unknown format.
    """
    if not efficiency:
        return render(tables, format_name)
    if not tables:
        return render_efficiency(efficiency, format_name)
    if format_name == "json":
        both = {"cells": cells(tables), "efficiency": as_objects(efficiency)}
        return json.dumps(both, indent=1, ensure_ascii=False) + "\n"
    if format_name == "latex":
        return latex(tables, parts(efficiency))
    return render(tables, format_name) + "\n" + render_efficiency(efficiency, format_name)
