"""Where lmms-eval evaluates: its tasks ask and score, the steps of a `Pipeline` answer.

One engine holds one model, which is loaded once; every cell is one `simple_evaluate` call with a task object of its own.
lmms-eval's response cache, baseline test, result files and process groups are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
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
from vtpbench.harness.records.outcome import Outcome, Swept
from vtpbench.harness.run.adapter import Adapter, QuestionReader, QuestionsRead
from vtpbench.harness.run.answer_faults import trusted
from vtpbench.harness.run.answering import Answerer
from vtpbench.harness.run.bad_questions import BadQuestions
from vtpbench.harness.run.forecast import schedule_of
from vtpbench.harness.run.lmms_library import simple_evaluate
from vtpbench.harness.run.plan import build_pruner
from vtpbench.harness.run.scoring import Evaluated, outcome
from vtpbench.harness.run.sweep import SweepRow, SweepShare, sweep
from vtpbench.harness.run.task_loading import LoadedTask, TaskLoader
from vtpbench.harness.run.task_questions import NumberedQuestions, drop_requests, keep_askable, naming_questions
from vtpbench.pruners.errors import Impossible, UserError

if TYPE_CHECKING:
    from vtpbench.harness.models.family import Family
    from vtpbench.harness.pruning.schedule import BudgetRule
    from vtpbench.harness.records.record import BenchmarkInfo
    from vtpbench.harness.run.pictures import PictureFolder
    from vtpbench.harness.run.questions import Question
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

    def sweep(
        self,
        cells: Sequence[Cell],
        benchmark: Benchmark,
        journal: Callable[[Cell], Journal],
        progress: Callable[[int, int], None],
        picture_folder: PictureFolder,
        log: Callable[[Cell], AbstractContextManager[None]],
        shares: Callable[[Sequence[Question]], Iterable[SweepShare]] = lambda questions: [SweepShare(slice(None))],
    ) -> dict[str, Swept]:
        """Answer the questions of cells of one benchmark together; `run` then finds the answers in their journals.

        A cell whose answers are not all there afterwards says in `run` what is wrong with it. Returns what this has cost each
        cell, by its id. `shares` is told all questions, and says which to ask, one run of whole windows after the other;
        journals are read before each.
        """
        answerers: dict[str, tuple[Cell, Answerer]] = {}
        for cell in cells:
            with suppress(Impossible, UserError):
                answerers[cell.id] = cell, self._answerer(cell, picture_folder)
        if not answerers:
            return {}
        info, bad = cells[0].benchmark, BadQuestions(self.family, cells[0].benchmark.on_bad_question)

        def row(cell: Cell, answerer: Answerer) -> SweepRow:
            kept = journal(cell)
            return SweepRow(answerer, trusted(kept), kept.add, partial(log, cell))

        def ask(asked: Sequence[Question]) -> None:
            for share in shares(asked):
                rows = [row(*each) for cell, each in answerers.items() if share.cells is None or cell in share.cells]
                if rows:
                    sweep(rows, asked[share.questions], bad, progress)

        with self._asking(benchmark, info) as (loaded, questions):
            first = next(iter(answerers.values()))[1]
            reader = QuestionReader(first, info.generation, "vtpbench", benchmark=benchmark.label, numbered=questions)
            reader.tell = ask
            with suppress(QuestionsRead):
                _evaluate(reader, loaded, info)
        return {cell_id: Swept(answerer.seconds, answerer.smallest) for cell_id, (_, answerer) in answerers.items()}

    def run(
        self,
        cell: Cell,
        benchmark: Benchmark,
        journal: Journal,
        progress: Callable[[int, int], None],
        picture_folder: PictureFolder | None = None,
        swept: Swept | None = None,
    ) -> Outcome:
        """Answer and score one cell; answers that the journal knows are not asked for again. `swept` is what they have cost."""
        answerer, shape = self._answerer(cell, picture_folder), self.family.shape
        if swept is not None:
            answerer.seconds, answerer.smallest = swept.seconds, swept.smallest
        with self._asking(benchmark, cell.benchmark) as (loaded, questions):
            adapter = Adapter(
                answerer, cell.benchmark.generation, f"vtpbench {cell.id}", journal, progress, benchmark.label, questions
            )
            adapter.leave_out = partial(drop_requests, loaded.task, questions)
            with naming_questions(loaded.task, benchmark.label, adapter.asked, adapter.answers, questions):
                results = _evaluate(adapter, loaded, cell.benchmark)
        samples = _behind_filter(loaded.task, results["samples"][loaded.name], cell.benchmark.filter)
        numbered = [{**sample, "doc_id": questions.name(sample["doc_id"])} for sample in samples]
        evaluated = Evaluated(
            results["results"][loaded.name], numbered, answerer, adapter.answers, benchmark.category, loaded.is_mean
        )
        skipped = {**questions.skipped, **answerer.bad.skipped}
        return replace(outcome(cell, answerer.pipeline.pruner, shape, evaluated), skipped=skipped)

    @contextmanager
    def _asking(self, benchmark: Benchmark, info: BenchmarkInfo) -> Iterator[tuple[LoadedTask, NumberedQuestions]]:
        """Load a benchmark's task to be asked once, with the questions that its code can put."""
        with without_progress_bars(), pillow_settings(truncated=False), self._tasks.load(benchmark, info) as loaded:
            skips = info.on_bad_question == "skip"
            yield loaded, keep_askable(loaded.task, _limit(info)) if skips else NumberedQuestions()

    def _answerer(self, cell: Cell, picture_folder: PictureFolder | None) -> Answerer:
        """Put a cell's pruner on the model; what is impossible says so before anything is asked."""
        pruner, shape = build_pruner(cell), self.family.shape
        if cell.model.vision_tokens is None:
            pruner.needs(shape)
        else:
            schedule_of(cell, pruner, cell.model.vision_tokens, shape)
        static = cell.graphs and self.family.has_graphs
        pipeline = replace(self.pipeline(pruner, partial(_budget_of, cell)), share_prefix=cell.share_prefix, static_steps=static)
        return Answerer(pipeline, self.batch_size, picture_folder, cell.benchmark.on_bad_question)

    def pipeline(self, pruner: Pruner, budget: BudgetRule) -> Pipeline:
        """Put the model and a cell's pruner together."""
        return Pipeline(self.family, pruner, budget)


def _limit(info: BenchmarkInfo) -> int | None:
    """Count the first questions that are asked; None for all, also of those that were drawn."""
    return None if info.draw else info.limit


def _evaluate(adapter: Adapter, loaded: LoadedTask, info: BenchmarkInfo) -> Any:
    """Let lmms-eval ask and score."""
    with TemporaryDirectory() as scratch:  # MMBench's scorer writes files that nobody asked for
        return simple_evaluate(
            adapter,
            tasks=[loaded.task],
            task_manager=loaded.manager,
            limit=_limit(info),
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
