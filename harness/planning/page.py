"""A plan as text: what is done, what is missing, what is impossible, and how long the rest may take."""

from __future__ import annotations

import dataclasses
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from vtpbench.harness.host.printable import one_line
from vtpbench.harness.host.text_grid import text_grid

if TYPE_CHECKING:
    from vtpbench.harness.records.cell import Cell
    from vtpbench.harness.records.record import Record
    from vtpbench.harness.run.forecast import Forecast


@dataclass(frozen=True)
class PlanRow:
    """One row of the printed plan: the cells that differ in the benchmark only."""

    model: str
    pruner: str
    budget: str
    tokens: float | None
    """Average vision tokens per image and layer, None where it varies with the image."""
    seed: int
    states: Mapping[str, str]
    """`done`, `missing`, `infeasible` or `unsupported`, by benchmark."""

    @property
    def head(self) -> list[str]:
        """What names the row."""
        tokens = "varies" if self.tokens is None else f"{self.tokens:.1f}".removesuffix(".0")
        return [one_line(word) for word in (self.model, self.pruner, self.budget, tokens, str(self.seed))]


def plan_rows(cells: Iterable[Cell], done: AbstractSet[str], forecasts: Mapping[str, Forecast]) -> list[PlanRow]:
    """Gather cells to rows in their order; `done` holds ids, as `forecasts` does."""
    found: dict[tuple[str, str, str, int], PlanRow] = {}
    for cell in cells:
        forecast = forecasts[cell.id]
        key = (cell.model.label, cell.pruner.label, cell.budget.label, cell.seed)
        row = found.setdefault(key, PlanRow(*key[:3], forecast.average, cell.seed, {}))
        state = "done" if cell.id in done else forecast.obstacle.partition(":")[0] or "missing"
        found[key] = dataclasses.replace(row, states={**row.states, cell.benchmark.label: state})
    return list(found.values())


def render_plan(
    cells: Sequence[Cell],
    done: AbstractSet[str],
    forecasts: Mapping[str, Forecast],
    seconds: Callable[[Cell], float | None] = lambda cell: None,
    more: Sequence[Sequence[str]] = (),
    width: int | None = None,
) -> str:
    """Print a plan as text: a row per model, pruner, budget and seed, a column per benchmark; schedules, counts and time.

    Parameters
    ----------
    cells : what `plan` gave, `narrow`ed or not
    done : ids of cells that have their record
    forecasts : what is known of each cell beforehand, by id
    seconds : estimated wall-clock time of a cell, None where unknown; see `estimator`
    more : paragraphs that come before the counts
    width : columns that lines are held to; benchmarks that do not fit beside each other are counted. None = no limit

    """
    benchmarks = list(dict.fromkeys(cell.benchmark.label for cell in cells))
    lines = _table(plan_rows(cells, done, forecasts), benchmarks, width)
    todo = [cell for cell in cells if cell.id not in done and not forecasts[cell.id].obstacle]
    blocked = [cell for cell in cells if cell.id not in done and forecasts[cell.id].obstacle]
    why = by_row(blocked, lambda cell: forecasts[cell.id].obstacle)
    cut = by_row(cells, lambda cell: forecasts[cell.id].schedule)
    tight = [f"warning: {text}" for text in _too_tight(todo, forecasts)]
    shown = ["vision tokens that enter the decoder layers:", *cut] if cut else []
    count = f"{len(cells)} cells: {len(cells) - len(todo) - len(blocked)} done, {len(todo)} missing"
    impossible = f", {len(blocked)} impossible" if blocked else ""
    end = f"{count}{impossible}; {_time(todo, seconds)}"
    return "\n".join([*lines, *paragraphs([shown, why, tight, *more, [end]], width)])


def paragraphs(parts: Iterable[Sequence[str]], width: int | None) -> list[str]:
    """Put parts that are not empty below each other, an empty line before each; long lines go on indented."""
    lines = [line for part in parts if part for line in ("", *part)]
    if width is None:
        return lines
    fold = partial(textwrap.wrap, width=width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return [folded for line in lines for folded in fold(line) or [""]]


def _table(rows: Sequence[PlanRow], benchmarks: Sequence[str], width: int | None) -> list[str]:
    """Show a column per benchmark or, where these do not fit, one that counts states."""
    head = ["model", "pruner", "budget", "tokens", "seed"]
    each = [[*row.head, *(row.states.get(label, "") for label in benchmarks)] for row in rows]
    lines = text_grid([[*head, *map(one_line, benchmarks)], *each])
    if width is None or max(map(len, lines)) <= width:
        return lines
    counted = [[*row.head, ", ".join(f"{n} {state}" for state, n in Counter(row.states.values()).items())] for row in rows]
    return text_grid([[*head, f"{len(benchmarks)} benchmarks"], *counted], width)


def _too_tight(cells: Iterable[Cell], forecasts: Mapping[str, Forecast]) -> list[str]:
    """Say which cells may leave the model's positions: one image leaves too few for an answer as long as it may be."""
    found = []
    for cell in cells:
        room, answer = forecasts[cell.id].room, cell.benchmark.generation.get("max_new_tokens", 0)
        if room is not None and room <= answer:
            left = f"one image leaves {max(0, room)} of the model's positions for text and an answer of up to {answer} tokens"
            found.append(f"{cell.model.label} / {cell.pruner.label} @ {cell.budget.label} / {cell.benchmark.label}: {left}")
    return list(dict.fromkeys(map(one_line, found)))


def by_row(cells: Iterable[Cell], text: Callable[[Cell], str]) -> list[str]:
    """List the texts of cells that have one, once for all benchmarks and seeds."""
    lines = (f"{c.model.label} / {c.pruner.label} @ {c.budget.label}: {text(c)}" for c in cells if text(c))
    return list(dict.fromkeys(map(one_line, lines)))


def _time(todo: Sequence[Cell], seconds: Callable[[Cell], float | None]) -> str:
    known = [value for value in map(seconds, todo) if value is not None]
    if not todo:
        return "nothing to do"
    if not known:
        return "time unknown, nothing like it has been measured yet"
    total = sum(known) * len(todo) / len(known)
    return f"about {total:.0f} s to go" if total < 120 else f"about {total / 60:.0f} min to go"


def estimator(records: Iterable[Record]) -> Callable[[Cell], float | None]:
    """Estimate wall-clock seconds of a cell: the mean over records of its model on the same questions, else on any."""
    same: dict[tuple[str, str, int | None], list[float]] = {}
    model: dict[str, list[float]] = {}
    for record in records:
        if record.timing is not None and record.status == "ok":
            key = (record.model.id, record.benchmark.dataset, record.benchmark.limit)
            same.setdefault(key, []).append(record.timing.wall_s)
            model.setdefault(record.model.id, []).append(record.timing.wall_s)

    def seconds(cell: Cell) -> float | None:
        key = (cell.model.id, cell.benchmark.dataset, cell.benchmark.limit)
        times = same.get(key) or model.get(cell.model.id)
        return sum(times) / len(times) if times else None

    return seconds
