"""What a suite names, as it stands now, among the records of its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, TypeVar

from vtpbench.harness.records.record import BenchmarkInfo, BudgetInfo, PrunerInfo, Record, split_terms
from vtpbench.harness.suite.benchmarks import Benchmark
from vtpbench.harness.suite.specs import PrunerSpec, automatic, build_described, is_seeded
from vtpbench.harness.suite.suite import Matrix, Suite
from vtpbench.pruners.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class NamedRow:
    """A row that a suite names; `info` is None for a pruner that cannot be built any more."""

    spec: PrunerSpec
    info: PrunerInfo | None
    seeded: bool

    def fits(self, measured: PrunerInfo) -> bool:
        """Whether this is what was measured. Its own file and those that options name may have moved, and options may be new."""
        if self.info is None:
            return (measured.name, measured.label) == (self.spec.name, self.spec.label)
        now: dict[str, Any] = self.info.model_dump(mode="json")["options"]
        then = {**now, **measured.options}  # what was no option then did what is the default now
        return measured.placeless == self.info.placeless and self._without_places(now) == self._without_places(then)

    def _without_places(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return {name: PurePath(str(value)).name if name in self.spec.files else value for name, value in options.items()}


def named(suite: Suite, records: Sequence[Record]) -> list[Record]:
    """Take the records that a suite asks for, under the labels that it gives; all records where it asks for none.

    A model is known by its path, a row by its pruner and options, a benchmark by its task and metric, whatever they were called
    when they were measured. A suite that was run with other limits or lists (`--limit`, `--set`) and never as it stands asks
    for none of its records.
    """
    unasked = automatic(spec for matrix in suite.matrix for spec in matrix.pruners)
    rows = [list(_rows([*matrix.pruners, *unasked])) for matrix in suite.matrix]
    asked = (_asked(suite, zip(suite.matrix, rows, strict=True), record) for record in records)
    return [record for record in asked if record is not None] or list(records)


def _rows(specs: Iterable[PrunerSpec]) -> Iterator[NamedRow]:
    for spec in specs:
        try:
            row = NamedRow(spec, build_described(spec)[1], is_seeded(spec.name))
        except UserError:  # its file has gone, for example; its records are still there
            row = NamedRow(spec, None, seeded=False)
        yield row


def _asked(suite: Suite, matrices: Iterable[tuple[Matrix, Sequence[NamedRow]]], record: Record) -> Record | None:
    """Give a record the labels that it has in the first matrix that asks for it; None where no matrix does."""
    models = {model.label: model for model in suite.models}
    model = _label(record.model.label, models, lambda spec: spec.path == record.model.id)
    asked = record.benchmark
    for matrix, rows in matrices:
        own = {benchmark.label: benchmark for benchmark in matrix.benchmarks if _limited(suite, benchmark, record)}
        benchmark = _label(asked.label, own, lambda each: _asks_for(each, asked))
        fitting = [row for row in rows if row.fits(record.pruner) and (not row.seeded or record.seed in matrix.seeds)]
        row = next((row for row in fitting if row.spec.label == record.pruner.label), fitting[0] if fitting else None)
        in_scope = model in (models if matrix.models is None else matrix.models)
        if model and benchmark and row and in_scope and record.budget in (BudgetInfo(), *matrix.budgets):
            return relabelled(record, {"model": model, "pruner": row.spec.label, "benchmark": benchmark})
    return None


def _asks_for(benchmark: Benchmark, asked: BenchmarkInfo) -> bool:
    """Whether a benchmark of the suite is what was measured; a filter need not be named where its task has one only."""
    named = {each for _, each in split_terms(benchmark.metric)} <= {None, asked.filter}
    return named and (benchmark.task, benchmark.terms) == (asked.task, asked.terms)


def relabelled(record: Record, labels: Mapping[str, str]) -> Record:
    """Give a record other labels of its `model`, `pruner` or `benchmark`."""
    parts = {part: getattr(record, part).model_copy(update={"label": label}) for part, label in labels.items()}
    return record.model_copy(update=parts)


def _label(measured: str, known: Mapping[str, T], fits: Callable[[T], bool]) -> str | None:
    """Find the label of what was measured: its own, if it still is one, or that of the only thing that fits."""
    if measured in known:
        return measured
    fitting = [label for label, thing in known.items() if fits(thing)]
    return fitting[0] if len(fitting) == 1 else None


def _limited(suite: Suite, benchmark: Benchmark, record: Record) -> bool:
    """Whether a record asked as many questions of a benchmark, drawn in the same way, and did the same about bad ones."""
    drawn = None if record.benchmark.draw is None else record.benchmark.draw.seed
    limited = (record.benchmark.limit, drawn) == benchmark.asked(suite.limit, suite.limit_seed)
    return limited and record.benchmark.on_bad_question == (benchmark.on_bad_question or suite.on_bad_question)
