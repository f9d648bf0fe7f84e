"""Where lmms-eval evaluates: its tasks ask and score, the steps of a `Pipeline` answer.

One engine holds one model, which is loaded once; every cell is one `simple_evaluate` call with a task object of its own.
lmms-eval's response cache, baseline test, result files and process groups are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from vtpbench.harness.host.images import pillow_settings
from vtpbench.harness.host.libraries import without_progress_bars
from vtpbench.harness.models.load import Described, open_model
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.records.cell import Cell, Journal, tokens_for
from vtpbench.harness.records.outcome import Outcome
from vtpbench.harness.run.adapter import Adapter, QuestionReader, QuestionsRead
from vtpbench.harness.run.answering import Answerer
from vtpbench.harness.run.bad_questions import BadQuestions
from vtpbench.harness.run.forecast import schedule_of
from vtpbench.harness.run.lmms_library import simple_evaluate
from vtpbench.harness.run.plan import build_pruner
from vtpbench.harness.run.scoring import Evaluated, outcome
from vtpbench.harness.run.sweep import SweepRow, sweep
from vtpbench.harness.run.task_loading import LoadedTask, TaskLoader
from vtpbench.harness.run.task_questions import NumberedQuestions, drop_requests, keep_askable, naming_questions
from vtpbench.pruners.errors import Impossible, UserError

if TYPE_CHECKING:
    from vtpbench.harness.models.family import Family
    from vtpbench.harness.pruning.schedule import BudgetRule
    from vtpbench.harness.run.pictures import PictureFolder
    from vtpbench.harness.suite.benchmarks import Benchmark
    from vtpbench.pruners.base import Pruner


def open_engine(described: Described, device: torch.device, batch_size: int) -> Engine:
    """Load a model onto a device, ready for its cells."""
    with without_progress_bars():
        return Engine(open_model(described, device), batch_size)


class Engine:
    """One loaded model, its tasks, and the lmms-eval adapter between them."""

    def __init__(self, family: Family, batch_size: int) -> None:
        self.family, self.batch_size = family, batch_size
        self._tasks = TaskLoader()
        self._swept: dict[str, Answerer] = {}

    def sweep(
        self,
        cells: Sequence[Cell],
        benchmark: Benchmark,
        journal: Callable[[Cell], Journal],
        progress: Callable[[int, int], None],
        picture_folder: PictureFolder | None = None,
        log: Callable[[Cell], AbstractContextManager[None]] = lambda cell: nullcontext(),
    ) -> dict[str, float]:
        """Answer the questions of cells of one benchmark together; `run` then finds the answers in their journals.

        A cell whose answers are not all there afterwards says in `run` what is wrong with it. Returns the seconds that went
        into each cell, by its id.
        """
        rows = []
        for cell in cells:
            try:
                answerer = self._answerer(cell, picture_folder)
            except (Impossible, UserError):
                continue
            known = {sample: answer for sample, answer in journal(cell).known().items() if answer.finite}
            rows.append(SweepRow(cell, answerer, journal(cell), known))
        if rows:
            try:
                self._sweep(rows, benchmark, progress, log)
            finally:
                self._swept.update({row.cell.id: row.answerer for row in rows})
        return {row.cell.id: row.answerer.seconds for row in rows}

    def _sweep(
        self,
        rows: Sequence[SweepRow],
        benchmark: Benchmark,
        progress: Callable[[int, int], None],
        log: Callable[[Cell], AbstractContextManager[None]],
    ) -> None:
        """Let lmms-eval put the questions once, and answer them for all rows."""
        first = rows[0]
        info, on_bad = first.cell.benchmark, first.cell.benchmark.on_bad_question
        limit = None if info.draw else info.limit
        bad = BadQuestions(self.family, on_bad)
        with without_progress_bars(), pillow_settings(truncated=False), self._tasks.load(benchmark, info) as loaded:
            questions = keep_askable(loaded.task, limit) if on_bad == "skip" else NumberedQuestions()
            reader = QuestionReader(first.answerer, info.generation, "vtpbench", benchmark=benchmark.label, numbered=questions)
            reader.tell = lambda asked: sweep(rows, asked, bad, progress, log)
            with suppress(QuestionsRead):
                _evaluate(reader, loaded, limit)

    def run(
        self,
        cell: Cell,
        benchmark: Benchmark,
        journal: Journal,
        progress: Callable[[int, int], None],
        picture_folder: PictureFolder | None = None,
    ) -> Outcome:
        """Answer and score one cell; answers that the journal knows are not asked for again."""
        answerer, shape = self._answerer(cell, picture_folder), self.family.shape
        if (before := self._swept.pop(cell.id, None)) is not None:
            answerer.seconds, answerer.smallest = before.seconds, before.smallest
        on_bad, limit = cell.benchmark.on_bad_question, None if cell.benchmark.draw else cell.benchmark.limit
        with without_progress_bars(), pillow_settings(truncated=False), self._tasks.load(benchmark, cell.benchmark) as loaded:
            questions = keep_askable(loaded.task, limit) if on_bad == "skip" else NumberedQuestions()
            adapter = Adapter(
                answerer, cell.benchmark.generation, f"vtpbench {cell.id}", journal, progress, benchmark.label, questions
            )
            adapter.leave_out = partial(drop_requests, loaded.task, questions)
            with naming_questions(loaded.task, benchmark.label, adapter.asked, adapter.answers, questions):
                results = _evaluate(adapter, loaded, limit)
        samples = _behind_filter(loaded.task, results["samples"][loaded.name], cell.benchmark.filter)
        numbered = [{**sample, "doc_id": questions.name(sample["doc_id"])} for sample in samples]
        evaluated = Evaluated(
            results["results"][loaded.name], numbered, answerer, adapter.answers, benchmark.category, loaded.is_mean
        )
        skipped = {**questions.skipped, **answerer.bad.skipped}
        return replace(outcome(cell, answerer.pipeline.pruner, shape, evaluated), skipped=skipped)

    def _answerer(self, cell: Cell, picture_folder: PictureFolder | None) -> Answerer:
        """Put a cell's pruner on the model; what is impossible says so before anything is asked."""
        pruner, shape = build_pruner(cell), self.family.shape
        if cell.model.vision_tokens is None:
            pruner.needs(shape)
        else:
            schedule_of(cell, pruner, cell.model.vision_tokens, shape)
        pipeline = replace(self.pipeline(pruner, partial(_budget_of, cell)), share_prefix=cell.share_prefix)
        return Answerer(pipeline, self.batch_size, picture_folder, cell.benchmark.on_bad_question)

    def pipeline(self, pruner: Pruner, budget: BudgetRule) -> Pipeline:
        """Put the model and a cell's pruner together."""
        return Pipeline(self.family, pruner, budget)


def _evaluate(adapter: Adapter, loaded: LoadedTask, limit: int | None) -> Any:
    """Let lmms-eval ask and score."""
    with TemporaryDirectory() as scratch:  # MMBench's scorer writes files that nobody asked for
        return simple_evaluate(
            adapter,
            tasks=[loaded.task],
            task_manager=loaded.manager,
            limit=limit,
            bootstrap_iters=0,
            process_docs_parallel=1,
            random_seed=0,
            cli_args=SimpleNamespace(process_with_media=False, output_path=scratch),
        )


def _behind_filter(task: Any, samples: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Take the samples as one filter of a task lets them through: lmms-eval lists all samples once for each of its filters."""
    filters = list(task.instances[0].filtered_resps)
    n = len(samples) // len(filters)
    start = n * filters.index(name)
    return samples[start : start + n]


def _budget_of(cell: Cell, n: int) -> int | None:
    return None if cell.is_vanilla else tokens_for(cell.budget, n)
