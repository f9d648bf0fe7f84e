"""The paper's tables from its printed scores, made by the code that makes measured ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from vtpbench.harness.records.record import BenchmarkInfo, BudgetInfo, Environment, ModelInfo, Observed, PrunerInfo, Record
from vtpbench.report.published.published import PAPER, VANILLA, PaperBlock, PaperBudget, PaperRow, PaperTable, Published, number
from vtpbench.report.stats.build import build
from vtpbench.report.tables.rounding import paper
from vtpbench.report.tables.table import Block, Table, TableEntry, TableRow


def published_tables(figures: Published) -> tuple[Table, ...]:
    """Make the paper's tables from its printed scores: percentages and averages are computed as for measured ones.

    Tables without scores of their own (6 and 7) are left out.
    """
    return tuple(_titled(figures, name, table, _built(table)) for name, table in figures.tables.items() if table.has_scores)


def missed_averages(table: PaperTable, built: Table) -> Iterator[str]:
    """Name the printed averages that do not follow from the printed scores."""
    for block, row, printed in _paired(table, built):
        if printed is not None and row.average is not None and paper(row.average) != paper(printed):
            yield f"{row.label}, {block.title}: {row.average:.3f} follows from the printed scores, printed is {paper(printed)}"


def _built(table: PaperTable) -> Table:
    vanilla = PaperBlock(budget=PaperBudget(tokens=None, percent=100), rows=(table.vanilla,))
    blocks = (vanilla, *table.blocks)
    records = [record for block in blocks for row in block.rows for record in _records(table, block.budget, row)]
    order = [row.pruner for block in table.blocks for row in block.rows]
    (built,) = build(records, table.benchmarks, list(dict.fromkeys(order)))
    return built


def _records(table: PaperTable, budget: PaperBudget, row: PaperRow) -> Iterator[Record]:
    """Dress the figures of one row as records, so that they take the way of measured ones."""
    vanilla = row.pruner == VANILLA
    seen = table.vision_tokens if vanilla else None if budget.asked is None else budget.tokens  # others are only asked for
    facts: dict[str, Any] = {
        "suite": PAPER,
        "status": "ok",
        "model": _model(table),
        "pruner": PrunerInfo(
            name="vanilla" if vanilla else row.pruner, label=row.pruner, options={}, code="", distribution=PAPER
        ),
        "budget": BudgetInfo() if vanilla else _asked(budget),
        "seed": 0,
        "environment": Environment(versions={}, device=PAPER, platform=PAPER, git_commit=None),
        "created": "",
    }
    if seen is not None:
        facts["observed"] = Observed(tokens=seen, original=table.vision_tokens or seen, per_layer=[], images=0)
    for name, score in zip(table.benchmarks, row.score, strict=True):
        if score is not None:
            info: dict[str, Any] = {"scale": 1, "split": "", "limit": None, "dataset": PAPER, "generation": {}}
            cell = sha256(f"{table.model} {row.pruner} {budget.percent} {name}".encode()).hexdigest()[:16]
            yield Record(cell_id=cell, benchmark=BenchmarkInfo(label=name, task="", metric="", **info), score=score, **facts)


def _asked(budget: PaperBudget) -> BudgetInfo:
    """State a budget as a record does; a count that is not whole was observed, not asked for."""
    whole = budget.tokens is not None and budget.tokens == int(budget.tokens)
    return BudgetInfo(tokens=int(budget.tokens or 0)) if whole else BudgetInfo(ratio=budget.percent / 100)


def _model(table: PaperTable) -> ModelInfo:
    facts = dict.fromkeys(("weights", "dtype", "attention", "preprocessing", "prompt"), PAPER)
    return ModelInfo(label=table.model, id=table.model, family=table.known_as.family, vision_tokens=table.vision_tokens, **facts)


def _titled(figures: Published, name: str, table: PaperTable, built: Table) -> Table:
    """Say what this is in place of what a measured table says of its run, and leave out averages that are not printed."""
    source = f"{number(name)} of {figures.source.paper}"
    printed = {(block.title, row.label): average for block, row, average in _paired(table, built)}
    blocks = tuple(
        replace(
            block,
            rows=tuple(_as_printed(row, printed[block.title, row.label]) for row in block.rows),
        )
        for block in built.blocks
    )
    footer = [
        ("Published, not measured", f"{source} ({figures.source.url})"),
        ("Cells", "score as printed, and below it the relative accuracy, recomputed from the printed scores, in %"),
        ("Avg", "mean of the unrounded relative accuracies over n benchmarks, recomputed; none where the paper prints none"),
        *(("Does not follow", line) for line in missed_averages(table, built)),
        *(("Note", note.text) for note in figures.notes if name in note.tables),
    ]
    return replace(
        built,
        title=f"{table.model} · {source} · published, not measured",
        blocks=blocks,
        notes=(),
        footer=tuple(footer),
    )


def _as_printed(row: TableRow, average: float | None) -> TableRow:
    """Leave empty what the paper leaves empty."""
    entries = tuple(TableEntry("unpublished") if entry.status == "missing" else entry for entry in row.entries)
    return replace(row, entries=entries, average=None if average is None else row.average)


def _paired(table: PaperTable, built: Table) -> Iterator[tuple[Block, TableRow, float | None]]:
    """Pair the rows made with the averages printed; both come by falling budget, rows in the paper's order."""
    printed: list[Sequence[PaperRow]] = [(table.vanilla,), *(block.rows for block in table.blocks)]
    for block, rows in zip(built.blocks, printed, strict=True):
        averages = {row.pruner: row.average for row in rows}
        yield from ((block, row, averages[row.label]) for row in block.rows)
