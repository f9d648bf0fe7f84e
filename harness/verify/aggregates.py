"""The number of a task from what it gave for each sample, without its data: its own aggregation, or the mean that it declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from vtpbench.harness.host.files import StorageError
from vtpbench.harness.records.outcome import Outcome
from vtpbench.harness.records.record import BenchmarkInfo
from vtpbench.harness.run.attempt import attempt
from vtpbench.harness.run.sample_scores import is_number
from vtpbench.harness.run.scoring import of_those_asked
from vtpbench.harness.suite.benchmarks import Benchmark
from vtpbench.harness.suite.task_metrics import is_mean, own_aggregations


def total_of(benchmark: Benchmark, info: BenchmarkInfo, details: Sequence[Mapping[str, Any]]) -> float | None:
    """Sum the metrics that are a score; None where one of them is neither a mean nor the task's own.

    Parameters
    ----------
    benchmark : whose task is asked
    info : what the record says of it
    details : the task's results for each sample, by metric

    """
    there = {term: items for term in info.terms if (items := [own[term] for own in details if term in own])}
    numbers = {term: _number(benchmark, term, items) for term, items in there.items()}
    known = {term: number for term, number in numbers.items() if number is not None}
    whole = bool(known) and len(known) == len(numbers)
    return sum(of_those_asked(term, number, len(details)) for term, number in known.items()) if whole else None


def _number(benchmark: Benchmark, metric: str, items: list[Any]) -> float | None:
    definition = benchmark.definition()
    if metric in own_aggregations(definition):
        return _own(benchmark, metric, items)
    if is_mean(definition, metric) and all(map(is_number, items)):
        return fmean(map(float, items))
    return None


def _own(benchmark: Benchmark, metric: str, items: list[Any]) -> float | None:
    """Ask the task's own code, which may refuse what a table has kept of its results."""
    from vtpbench.harness.run.task_loading import aggregate_anew  # imports lmms-eval: many seconds

    with TemporaryDirectory() as scratch:  # MMBench's writes files that nobody asked for
        arguments = {"args": SimpleNamespace(process_with_media=False, output_path=scratch)}
        value = attempt(lambda: aggregate_anew(benchmark, metric, items, arguments), StorageError, metric)
    return None if isinstance(value, Outcome) or not is_number(value) else float(value)
