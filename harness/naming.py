"""What a suite names, as it stands now, among the records of its folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from vtpbench.harness.record import BudgetInfo, Record
from vtpbench.harness.specs import PrunerSpec, automatic, describe_pruner
from vtpbench.harness.suite import Matrix, Suite
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.registry import build


def named(suite: Suite, records: Sequence[Record]) -> list[Record]:
    """Take the records that a suite asks for, its rows under the labels that it gives them; all records where it asks for none.

    A row is known by its pruner and options, whatever it was called when it was measured. A suite that was run with other
    limits or lists (`--limit`, `--set`) and never as it stands asks for none of its records.
    """
    unasked = automatic(spec for matrix in suite.matrix for spec in matrix.pruners)
    known: dict[int, list[tuple[str, dict[str, Any], str]]] = {
        m: list(_rows([*matrix.pruners, *unasked])) for m, matrix in enumerate(suite.matrix)
    }
    found = []
    for record in records:
        for m, matrix in enumerate(suite.matrix):
            label = next((row[2] for row in known[m] if row[:2] == (record.pruner.name, record.pruner.options)), None)
            if label is not None and _asks(suite, matrix, record):
                pruner = record.pruner.model_copy(update={"label": label})
                found.append(record.model_copy(update={"pruner": pruner}))
                break
    return found or list(records)


def _rows(specs: Iterable[PrunerSpec]) -> Iterable[tuple[str, dict[str, Any], str]]:
    """Name, all options and label of each row that can be built."""
    for spec in specs:
        try:
            info = describe_pruner(spec, build(spec.name, spec.placed))
        except UserError:  # its file has gone, for example; its records are still there
            continue
        yield info.name, info.model_dump(mode="json")["options"], spec.label


def _asks(suite: Suite, matrix: Matrix, record: Record) -> bool:
    """Whether a matrix holds the model, the budget, the benchmark and its limit; every row but vanilla has a budget."""
    models = [model.label for model in suite.models] if matrix.models is None else matrix.models
    limits = {benchmark.label: benchmark.limit or suite.limit for benchmark in matrix.benchmarks}
    asked = record.benchmark
    return (
        record.model.label in models
        and record.budget in (BudgetInfo(), *matrix.budgets)
        and asked.label in limits
        and asked.limit == limits[asked.label]
    )
