"""The task of a cell as nobody has used it before: loaded anew, in modules of its own, its aggregation proved to keep nothing."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np

from vtpbench.harness.host.images import pillow_settings
from vtpbench.harness.records.record import BenchmarkInfo, DrawInfo, agree
from vtpbench.harness.run.bad_questions import is_of_question, problem_of
from vtpbench.harness.run.data_cache import DataCache
from vtpbench.harness.run.lmms_library import TaskManager, get_task_dict, load_yaml_config
from vtpbench.harness.run.sample_scores import is_number
from vtpbench.harness.run.subset import draw_questions, keep_questions
from vtpbench.harness.run.task_modules import fresh_modules
from vtpbench.harness.suite.benchmarks import require_unchanged, task_config
from vtpbench.harness.suite.task_metrics import is_mean, metric_entries, own_aggregations
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    from vtpbench.harness.suite.benchmarks import Benchmark

Aggregate = Callable[..., Any]
"""From what a task gives for each sample to the number of a metric."""


@dataclass(frozen=True)
class LoadedTask:
    """A task for one evaluation."""

    name: str
    task: Any
    manager: TaskManager
    """Without one, lmms-eval indexes its 2,000 tasks anew."""
    is_mean: bool
    """Whether the score is declared to be the mean of the samples' scores."""


@dataclass(frozen=True)
class AggregateCall:
    """What an aggregation was given, and what it gave."""

    metric: str
    items: list[Any]
    arguments: dict[str, Any]
    draws: Any
    """States of the process's generators before it."""
    value: Any


@dataclass(frozen=True)
class _Facts:
    """What is known of a benchmark's task without running its code."""

    manager: TaskManager
    config: dict[str, Any]
    own: frozenset[str]
    """Metrics that the task's own code aggregates."""
    means: frozenset[str]
    """Metrics that are declared to be means."""

    @classmethod
    def read(cls, benchmark: Benchmark) -> _Facts:
        definition, manager = benchmark.definition(), TaskManager(include_defaults=False, include_path=str(benchmark.file.parent))
        means = frozenset(metric for metric in metric_entries(definition) if is_mean(definition, metric))
        return cls(manager, task_config(benchmark), own_aggregations(definition), means)


class TaskLoader:
    """Loads a task for each cell; what its folder holds, where its data are and which questions are drawn is found once."""

    def __init__(self) -> None:
        self._known: dict[str, _Facts] = {}
        self._drawn: dict[tuple[str, int, DrawInfo], list[int]] = {}
        self._data = DataCache()

    @contextmanager
    def load(self, benchmark: Benchmark, info: BenchmarkInfo) -> Iterator[LoadedTask]:
        """Load a task, with all questions or those that are drawn; its code forgets everything on the way out.

        Raises `UserError` behind the evaluation where the score depends on what was scored before.
        """
        new = benchmark.label not in self._known
        if new:
            self._known[benchmark.label] = _Facts.read(benchmark)
        facts = self._known[benchmark.label]
        calls: list[AggregateCall] = []
        with fresh_modules(benchmark.file.parent):
            with self._data.read_once():
                name, task = _load_task(benchmark.label, facts)
            if new:
                require_unchanged(benchmark, info.dataset)
            for metric in benchmark.drop:  # what has no aggregation is not computed
                task.aggregation().pop(metric, None)
            for metric in facts.own & set(info.terms):
                task.aggregation()[metric] = _recording(task.aggregation()[metric], metric, calls)
            if info.draw and info.limit:
                key = benchmark.label, info.limit, info.draw
                if key not in self._drawn:
                    self._drawn[key] = draw_questions(task, info.limit, info.draw)
                keep_questions(task, self._drawn[key])
            yield LoadedTask(name, task, facts.manager, set(info.terms) <= facts.means and len(info.terms) == 1)
        for call in calls:
            _prove(call, benchmark)


def _load_task(label: str, facts: _Facts) -> tuple[str, Any]:
    """Load a task; lmms-eval tries its first question, whose picture may be cut off: whoever asks it says so."""
    try:
        with pillow_settings(truncated=True):
            (name, task), *_ = get_task_dict([copy.deepcopy(facts.config)], facts.manager).items()
    except Exception as e:
        if not is_of_question(e):
            raise
        tried = "the task cannot be loaded, for which lmms-eval tries question 0"
        raise UserError(f"benchmark '{label}': {tried}: {problem_of(e)}") from e
    return name, task


@contextmanager
def restored_draws(start: Any = None) -> Iterator[Any]:
    """Let what is drawn inside from the generators of the process not change what is drawn from them afterwards.

    Gives their states; `start` are those to begin with.
    """
    states = random.getstate(), np.random.get_state()
    _set_draws(start or states)
    try:
        yield states
    finally:
        _set_draws(states)


def _set_draws(states: Any) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])


def _recording(aggregate: Aggregate, metric: str, calls: list[AggregateCall]) -> Aggregate:
    """Let an aggregation note what it was given and what it made of it."""

    @wraps(aggregate)
    def recording(items: list[Any], **arguments: Any) -> Any:
        untouched = copy.deepcopy(items)
        with restored_draws() as draws:
            value = aggregate(items, **arguments)
        calls.append(AggregateCall(metric, untouched, arguments, draws, value))
        return value

    return recording


def _prove(call: AggregateCall, benchmark: Benchmark) -> None:
    """Aggregate the same samples in new modules; raises `UserError` where that gives another number."""
    again = aggregate_anew(benchmark, call.metric, call.items, call.arguments, call.draws)
    if not _same(call.value, again):
        given = f"gives {call.metric} = {call.value!r}, and {again!r} for the same samples when its code is loaded anew"
        raise UserError(f"task {benchmark.task} {given}: its score depends on what was scored before; mend the task")


def aggregate_anew(benchmark: Benchmark, metric: str, items: list[Any], arguments: Mapping[str, Any], draws: Any = None) -> Any:
    """Aggregate what a task gave for its samples, by the task's own code in modules that nobody has used.

    The metric is one of `own_aggregations`. Of the further `arguments` it is given those that it takes; `draws` are the states
    of the process's generators to begin with.
    """
    with fresh_modules(benchmark.file.parent), restored_draws(draws):
        aggregate = _aggregations(benchmark)[metric]
        taken = signature(aggregate).parameters
        return aggregate(items, **{name: value for name, value in arguments.items() if name in taken})


def _aggregations(benchmark: Benchmark) -> dict[str, Any]:
    """Load the aggregation of each metric anew: a function of the task's code, or the name of one of lmms-eval's own."""
    definition = {**load_yaml_config(str(benchmark.file), mode="full"), **benchmark.overrides}
    return {metric: entry.get("aggregation") for metric, entry in metric_entries(definition).items()}


def _same(one: Any, other: Any) -> bool:
    """Whether two results are the same number; of what is no number, only that both are none."""
    if not (is_number(one) and is_number(other)):
        return is_number(one) == is_number(other)
    return agree(float(one), float(other))
