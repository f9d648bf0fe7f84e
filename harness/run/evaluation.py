"""One evaluation by lmms-eval: a task that nobody has used before, asked and scored, and what came out of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from vtpbench.harness.host.images import pillow_settings
from vtpbench.harness.host.libraries import without_progress_bars
from vtpbench.harness.run.lmms_library import lmms, simple_evaluate
from vtpbench.harness.run.scoring import Evaluated
from vtpbench.harness.run.task_loading import LoadedTask, TaskLoader
from vtpbench.harness.run.task_questions import NumberedQuestions, keep_askable

if TYPE_CHECKING:
    from vtpbench.harness.records.cell import Answer
    from vtpbench.harness.records.record import BenchmarkInfo
    from vtpbench.harness.suite.benchmarks import Benchmark


@contextmanager
def asking(tasks: TaskLoader, benchmark: Benchmark, info: BenchmarkInfo) -> Iterator[tuple[LoadedTask, NumberedQuestions]]:
    """Load a benchmark's task to be asked once, with the questions that its code can put."""
    with without_progress_bars(), pillow_settings(truncated=False), tasks.load(benchmark, info) as loaded:
        skips = info.on_bad_question == "skip"
        yield loaded, keep_askable(loaded.task, _limit(info)) if skips else NumberedQuestions()


def evaluate(model: lmms, loaded: LoadedTask, info: BenchmarkInfo) -> Any:
    """Let lmms-eval ask a model and score its answers."""
    with TemporaryDirectory() as scratch:  # MMBench's scorer writes files that nobody asked for
        return simple_evaluate(
            model,
            tasks=[loaded.task],
            task_manager=loaded.manager,
            limit=_limit(info),
            bootstrap_iters=0,
            process_docs_parallel=1,
            random_seed=0,
            cli_args=SimpleNamespace(process_with_media=False, output_path=scratch),
        )


def evaluated(
    evaluation: Any,
    answers: Mapping[str, Answer],
    loaded: LoadedTask,
    questions: NumberedQuestions,
    benchmark: Benchmark,
    info: BenchmarkInfo,
) -> Evaluated:
    """Take a task's numbers, and its samples as the filter whose numbers count lets them through, under their own names."""
    filtered = _behind_filter(loaded.task, evaluation["samples"][loaded.name], info.filter)
    samples = [{**sample, "doc_id": questions.name(sample["doc_id"])} for sample in filtered]
    return Evaluated(evaluation["results"][loaded.name], samples, answers, benchmark.category, loaded.is_mean)


def _limit(info: BenchmarkInfo) -> int | None:
    """Count the first questions that are asked; None for all, also of those that were drawn."""
    return None if info.draw else info.limit


def _behind_filter(task: Any, samples: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Take the samples as one filter of a task lets them through: lmms-eval lists all samples once for each of its filters."""
    filters = list(task.instances[0].filtered_resps)
    n = len(samples) // len(filters)
    start = n * filters.index(name)
    return samples[start : start + n]
