"""JSON and CSV: one object per cell, for scripts; the fields are described in docs/records.md and kept stable."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from vtpbench.harness.records.record import Record
from vtpbench.report.tables.rounding import relative
from vtpbench.report.tables.table import CellIntervals, Table, TableEntry, seeds_asked

FIELDS = (
    "model",
    "pruner",
    "label",
    "budget",
    "observed_tokens",
    "benchmark",
    "metric",
    "score",
    "stderr",
    "relative",
    "n",
    "seed",
    "status",
    "cell_id",
    "score_low",
    "score_high",
    "relative_low",
    "relative_high",
    "seeds",
    "seeds_asked",
    "higher_is_better",
    "skipped",
    "empty_answers",
    "unended_answers",
    "most_common_answers",
    "most_common_answer",
    "answer_tokens",
)


def as_json(tables: Sequence[Table]) -> str:
    """Print a list of objects; numbers are not rounded, what is not known is null."""
    return json.dumps(cells(tables), indent=1, ensure_ascii=False) + "\n"


def as_csv(tables: Sequence[Table]) -> str:
    """Print the same as columns; what is not known is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells(tables))
    return text.getvalue()


def cells(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """List what was measured, every cell once, in the order of the tables."""
    return [cell_facts(record, entry) for record, entry in measured(tables)]


def measured(tables: Sequence[Table]) -> list[tuple[Record, TableEntry]]:
    """List every record once, in the order of the tables, with its place there."""
    entries = [entry for table in tables for block in table.blocks for row in block.rows for entry in row.entries]
    found = [(record, entry) for entry in entries for record in sorted(entry.records, key=lambda r: r.seed)]
    return list({(record.suite, record.cell_id): (record, entry) for record, entry in found}.values())


def cell_facts(record: Record, entry: TableEntry) -> dict[str, Any]:
    """Say of a record what `FIELDS` names."""
    intervals = entry.cell_intervals.get(record.cell_id, CellIntervals())
    score, ratio = intervals.score or (None, None), intervals.relative or (None, None)
    return {
        "model": record.model.label,
        "pruner": record.pruner.name,
        "label": record.pruner.label,
        "budget": record.budget.label,
        "observed_tokens": record.observed.tokens if record.observed else None,
        "benchmark": record.benchmark.label,
        "metric": record.benchmark.metric,
        "score": record.score,
        "stderr": record.stderr,
        "relative": relative(record.score, entry.vanilla, record.benchmark.higher_is_better),
        "n": record.n,
        "seed": record.seed,
        "status": record.status,
        "cell_id": record.cell_id,
        "score_low": score[0],
        "score_high": score[1],
        "relative_low": ratio[0],
        "relative_high": ratio[1],
        "seeds": len({r.seed for r in entry.records}),
        "seeds_asked": len(seeds_asked(entry.records)),
        "higher_is_better": record.benchmark.higher_is_better,
        "skipped": len(record.skipped),
        "empty_answers": record.answers and record.answers.empty,
        "unended_answers": record.answers and record.answers.at_limit,
        "most_common_answers": record.answers and record.answers.most_common,
        "most_common_answer": record.answers and record.answers.text,
        "answer_tokens": record.observed and record.observed.answer_tokens,
    }
