"""What the cells that are left will cost on one GPU: hours and memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from vtpbench.harness.efficiency.flops import Workload
from vtpbench.harness.efficiency.gpu_time import GpuClock, TypicalPrompt
from vtpbench.harness.efficiency.gpus import Gpu, gpu_table
from vtpbench.harness.models.described_sizes import dimensions_of
from vtpbench.harness.run.batch_size import TEXT, peak_bytes
from vtpbench.harness.run.forecast import schedule_of, supposed_grid
from vtpbench.harness.run.plan import build_pruner
from vtpbench.pruners.base import Grid
from vtpbench.pruners.errors import Infeasible

if TYPE_CHECKING:
    from vtpbench.harness.models.load import Described
    from vtpbench.harness.planning.questions import QuestionCount
    from vtpbench.harness.records.cell import Cell
    from vtpbench.pruners.base import ModelShape

TEXT_BEFORE, ANSWER = 35, 4
"""Tokens that are assumed of a prompt before its image, and of an answer: a question that a word answers."""


@dataclass(frozen=True)
class CostEstimate:
    """What one model's cells need.

    Attributes
    ----------
    seconds : by benchmark
    peak_bytes : of the unpruned model, in batches of the cells' size
    fits : whether the GPU has as much memory

    """

    seconds: Mapping[str, float]
    peak_bytes: float
    fits: bool


def estimate(
    cells: Sequence[Cell], models: Mapping[str, Described], counts: Mapping[str, QuestionCount], gpu: Gpu
) -> dict[str, CostEstimate]:
    """Estimate the cost of cells by model; benchmarks of which the size is not known are left out.

    Parameters
    ----------
    cells : that can be measured and are not; seeds count each
    models : by label
    counts : what benchmarks ask, by label
    gpu : one, on which the cells are measured in sweeps: of a benchmark together

    """
    return {
        label: _of_model([cell for cell in cells if cell.model.label == label], models[label], counts, gpu)
        for label in dict.fromkeys(cell.model.label for cell in cells)
    }


def _of_model(cells: Sequence[Cell], model: Described, counts: Mapping[str, QuestionCount], gpu: Gpu) -> CostEstimate:
    clock = GpuClock(gpu, gpu_table().measured, dimensions_of(model))
    rows: dict[tuple[object, ...], _Row | None] = {}
    seconds: dict[str, float] = {}
    peak = 0.0
    for label in dict.fromkeys(cell.benchmark.label for cell in cells):
        asked = counts[label]
        if not asked.questions or not asked.pictures:
            continue
        same = [cell for cell in cells if cell.benchmark.label == label]
        for cell in same:
            if _name(cell) not in rows:
                rows[_name(cell)] = _row(cell, model.shape)
        own = [row for row in (rows[_name(cell)] for cell in same) if row is not None]
        if not own:
            continue
        seconds[label] = _of_benchmark(own, asked.questions, asked.pictures, same[0].batch_size, clock)
        peak = max(peak, peak_bytes(model, same[0].batch_size, graphs=same[0].graphs))
    return CostEstimate(seconds, peak, peak <= gpu.gb * 1e9)


@dataclass(frozen=True)
class _Row:
    """How a cell's pruner changes one prompt.

    `alone` = its pictures go through the tower for it alone; `graphs` = what comes again is replayed; `cached` = prompts are
    prefilled behind the system prompt, and questions behind their picture; `layers` before the first in which tokens leave.
    """

    grid: Grid
    per_layer: tuple[int, ...]
    alone: bool
    skips: bool
    cached: bool
    layers: int | None
    graphs: bool
    tower: tuple[int, ...] | None

    def prompt(self, each: float, batch: int) -> TypicalPrompt:
        """Give the prompt of a benchmark with so many questions a picture."""
        work = Workload(self.grid, self.per_layer, TEXT, ANSWER, tower=self.tower)
        together = min(each, batch) if self.cached else 1.0
        return TypicalPrompt(work, TEXT_BEFORE, together, self.graphs, self.cached, self.layers)


def _name(cell: Cell) -> tuple[object, ...]:
    """Tell rows of a model apart, seeds aside."""
    return cell.pruner.label, cell.budget, cell.share_prefix, cell.graphs


def _row(cell: Cell, shape: ModelShape) -> _Row | None:
    """Say what a pruner does to a prompt; None where its budget is out of reach for the image that stands for all."""
    grid = supposed_grid(cell.model, shape)
    n = grid.n
    try:
        schedule = schedule_of(cell, build_pruner(cell), n, shape)
    except Infeasible:
        return None
    if schedule.target_grid is not None:
        grid = Grid(grid.tiles, *schedule.target_grid)
    flash = "flash" in cell.model.attention
    share_prefix = cell.share_prefix and not flash
    inside = {cut.at % shape.vision_layers: cut.keep for cut in schedule.tower_cuts}
    return _Row(
        grid,
        _by_layer({cut.at: cut.keep for cut in schedule.cuts}, grid.n, shape.decoder_layers),
        alone=bool(inside) or schedule.target_grid is not None,
        skips=schedule.skips_tower,
        cached=share_prefix and not schedule.skips_tower,
        layers=min((cut.at for cut in schedule.later_cuts), default=None),
        graphs=cell.graphs and not flash,
        tower=_by_layer(inside, grid.height * grid.width, shape.vision_layers) if inside else None,
    )


def _by_layer(left: Mapping[int, int], n: int, layers: int) -> tuple[int, ...]:
    """Count tokens layer by layer, of which some leave `n` only so many."""
    return tuple(accumulate(range(layers), lambda before, layer: left.get(layer, before), initial=n))[1:]


def _of_benchmark(rows: Sequence[_Row], questions: int, pictures: int, batch: int, clock: GpuClock) -> float:
    """Seconds of one benchmark: the language model row by row, the tower once for all that can share it, the host beside."""
    size = min(batch, questions)
    each = questions / pictures
    language = sum(math.ceil(questions / size) * clock.batch(row.prompt(each, size), size) for row in rows)
    seeing = [row for row in rows if not row.skips]
    passes = [row for row in seeing if row.alone] + [row for row in seeing if not row.alone][:1]
    seen = sum(pictures * clock.tower(row.prompt(each, size).work) for row in passes)
    return max(language + seen, pictures * clock.reached.picture_ms / 1000)
