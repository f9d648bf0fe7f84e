"""The rows of a suite without benchmarks, which is for `vtpbench profile`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtpbench.harness.efficiency.profiled_model import describe_counted
from vtpbench.harness.host.text_grid import text_grid
from vtpbench.harness.planning.inspection import NOT_HERE
from vtpbench.harness.planning.page import PlanRow, by_row, paragraphs
from vtpbench.harness.records.cell import Cell
from vtpbench.harness.records.record import BenchmarkInfo
from vtpbench.harness.run.forecast import Forecast, foresee
from vtpbench.harness.run.plan import planned_rows
from vtpbench.harness.suite.specs import automatic, with_random_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vtpbench.harness.suite.suite import Suite

SPEED = BenchmarkInfo(label="speed", task="", metric="", scale=1, split="", limit=None, dataset=NOT_HERE, generation={})
"""In place of a benchmark: no question is asked."""


def render_speed(suite: Suite, name: str, width: int | None = None) -> str:
    """Print the rows that a profile of a suite will have, with their schedules; raises `UserError` for an unknown model."""
    seen = dict(_foreseen(suite))
    rows = [PlanRow(c.model.label, c.pruner.label, c.budget.label, f.average, 0, {}) for c, f in seen.values()]
    states = [f.obstacle.partition(":")[0] or "to be measured" for _, f in seen.values()]
    table = [["model", "pruner", "budget", "tokens", "speed"]]
    table += [[*row.head[:4], state] for row, state in zip(rows, states, strict=True)]
    cut = by_row((c for c, _ in seen.values()), lambda cell: seen[cell.id][1].schedule)
    why = by_row((c for c, _ in seen.values()), lambda cell: seen[cell.id][1].obstacle)
    shown = ["vision tokens that enter the decoder layers:", *cut] if cut else []
    end = f"{len(rows)} rows and no benchmarks: what they save and cost is measured by `vtpbench profile {name}`"
    return "\n".join([*text_grid(table, width), *paragraphs([shown, why, [end]], width)])


def _foreseen(suite: Suite) -> Iterator[tuple[str, tuple[Cell, Forecast]]]:
    """List the rows of every model, each once, as cells without a benchmark."""
    unasked = automatic(spec for matrix in suite.matrix for spec in matrix.pruners)
    for spec in suite.models:
        described = describe_counted(spec, spec.dtype, str(spec.attention))
        for matrix in suite.matrix:
            if matrix.models is not None and spec.label not in matrix.models:
                continue
            for pruner, budget, _ in planned_rows(matrix, described.info, lambda pruner, model: "", *unasked):
                options = with_random_weights(pruner.name, pruner.options) if spec.dummy is None else pruner.options
                own = pruner.model_copy(update={"options": options})
                cell = Cell(described.info, own, budget, SPEED, 0, 1, {})
                yield cell.id, (cell, foresee(cell, described.shape))
