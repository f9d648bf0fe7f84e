"""A record's score against what its samples give: scored again as far as this machine can."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import isclose
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from vtpbench.harness.host.files import StorageError
from vtpbench.harness.records.cell import Sample
from vtpbench.harness.records.environment import version_of
from vtpbench.harness.records.outcome import Outcome
from vtpbench.harness.records.record import TOLERANCE, BenchmarkInfo, Record, agree
from vtpbench.harness.run.attempt import attempt
from vtpbench.harness.run.sample_scores import sample_score
from vtpbench.harness.run.scoring import ROUNDED
from vtpbench.harness.suite.task_metrics import choose_score
from vtpbench.harness.verify.aggregates import total_of
from vtpbench.harness.verify.known import KnownBenchmarks
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    from vtpbench.harness.suite.benchmarks import Benchmark
    from vtpbench.harness.verify.replay import Replays

LMMS_EVAL = "lmms-eval"
Level = Literal["answers", "results", "means", "none"]
LEVELS: dict[Level, str] = {
    "answers": "scored again from their answers",
    "results": "aggregated again from the task's result of each sample",
    "means": "compared with the mean of their samples' scores",
    "none": "not scored again",
}
"""What a score was compared with, the strongest first."""


@dataclass(frozen=True)
class Rescored:
    """What a cell's score was compared with, what was wrong, and why it was not compared with more."""

    level: Level
    faults: tuple[str, ...] = ()
    why_not_more: str = ""


class Scorers:
    """Scores cells again with the official scorers; `suites` name benchmarks beside those that come with vtpbench."""

    def __init__(self, suites: Sequence[str] = ()) -> None:
        self._known = KnownBenchmarks(suites)

    @cached_property
    def _replays(self) -> Replays:
        from vtpbench.harness.verify.replay import Replays  # imports lmms-eval: many seconds

        return Replays()

    def rescore(self, record: Record, rows: Sequence[Sample]) -> Rescored:
        """Compare the score of a cell, whose status is `ok`, with what its samples give."""
        info = record.benchmark
        there, here = record.environment.versions.get(LMMS_EVAL), version_of(LMMS_EVAL)
        if there != here:
            return self._by_mean(record, rows, f"scored with lmms-eval {there}, here is {here}")
        benchmark = self._known.same(info)
        if benchmark is not None:
            again = Rescored("answers", tuple(self._replays.faults(benchmark, record, rows)))
        else:
            again = self._without_data(record, rows)
        return replace(again, faults=(*again.faults, *direction_faults(info, self._known.like(info))))

    def _without_data(self, record: Record, rows: Sequence[Sample]) -> Rescored:
        """Compare with what the task gave for each sample, where the task is known."""
        info = record.benchmark
        like = self._known.like(info)
        if not like:
            return self._by_mean(record, rows, f"the task {info.task} is not known here, name its suite with --suite")
        try:
            return self._by_results(record, rows, like, f"the data of {info.task} are not here, or not the ones that were asked")
        except UserError as e:
            return self._by_mean(record, rows, str(e))

    def _by_results(self, record: Record, rows: Sequence[Sample], like: Sequence[Benchmark], why: str) -> Rescored:
        """Aggregate what the task gave for each sample, which is what the column `detail` holds."""
        details = [json.loads(row.detail) for row in rows]
        totals = (total_of(each, record.benchmark, details) for each in like)
        total = next((total for total in totals if total is not None), None)
        if total is None:
            return self._by_mean(record, rows, f"{why}, nor can its own results be aggregated")
        return Rescored("results", (*sample_faults(record.benchmark, rows), *score_faults(record, total)), why)

    def _by_mean(self, record: Record, rows: Sequence[Sample], why: str) -> Rescored:
        """Compare with the mean of the samples' scores, which is the score where the record has a standard error of it."""
        scores, unlike = [row.score for row in rows if row.score is not None], tuple(sample_faults(record.benchmark, rows))
        if record.stderr is None or len(scores) < len(rows) or not scores:
            return Rescored("none", unlike, why)
        return Rescored("means", (*unlike, *score_faults(record, fmean(scores), ROUNDED)), why)


def direction_faults(info: BenchmarkInfo, like: Sequence[Benchmark]) -> Iterator[str]:
    """Say where a record has another direction than its task: relative accuracies would be turned round."""
    with suppress(UserError):  # a file of the task is not here
        known = {choose_score(each.definition(), each.metric, each.label).higher_is_better for each in like}
        if known and info.higher_is_better not in known:
            said, true = ("more", "less") if info.higher_is_better else ("less", "more")
            yield f"the record says that {said} of {info.metric} is better, its task says that {true} is"


def score_faults(record: Record, total: float, rounded: float = 0.0) -> Iterator[str]:
    """Compare a record's score with a task's number before it is scaled; `rounded` is what the task may have rounded off."""
    given, least = record.benchmark.scale * total, max(TOLERANCE, record.benchmark.scale * rounded)
    if record.score is None or not isclose(record.score, given, rel_tol=TOLERANCE, abs_tol=least):
        yield f"its score is {record.score}, its samples give {given:.10g}"


def sample_faults(info: BenchmarkInfo, rows: Sequence[Sample]) -> Iterator[str]:
    """Say which sample has another score than the task's own result for it."""
    for row in rows:
        own = {metric: item for metric, item in json.loads(row.detail).items() if metric in info.terms}
        metric, item = next(iter(own.items()), ("", None))
        score = attempt(partial(sample_score, metric, item), StorageError, row.sample)  # the item may be anything
        if isinstance(score, Outcome) or not _same(row.score, score):
            yield f"question {row.sample} has the score {row.score}, and the task's result {row.detail:.60} for it"
            return


def _same(one: float | None, other: float | None) -> bool:
    return one == other if one is None or other is None else agree(one, other)
