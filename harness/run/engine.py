"""Where lmms-eval evaluates: its tasks ask and score, the steps of a `Pipeline` answer.

One engine holds one model, which is loaded once; every cell is one `simple_evaluate` call with a task object of its own.
lmms-eval's response cache, baseline test, result files and process groups are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from vtpbench.harness.host.libraries import without_progress_bars
from vtpbench.harness.models.load import Described, open_model
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.records.cell import Cell, Journal, tokens_for
from vtpbench.harness.records.outcome import Outcome, Swept
from vtpbench.harness.run.adapter import Adapter, QuestionReader, QuestionsRead
from vtpbench.harness.run.answer_faults import trusted
from vtpbench.harness.run.answering import Answerer
from vtpbench.harness.run.bad_questions import BadQuestions
from vtpbench.harness.run.evaluation import asking, evaluate, evaluated
from vtpbench.harness.run.forecast import schedule_of
from vtpbench.harness.run.plan import build_pruner
from vtpbench.harness.run.scoring import cost_of, outcome
from vtpbench.harness.run.sweep import SweepRow, SweepShare, WindowReader, sweep
from vtpbench.harness.run.task_loading import TaskLoader
from vtpbench.harness.run.task_questions import drop_requests, naming_questions
from vtpbench.pruners.errors import Impossible, UserError

if TYPE_CHECKING:
    from vtpbench.harness.models.family import Family
    from vtpbench.harness.pruning.schedule import BudgetRule
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
        info = cells[0].benchmark
        windows = WindowReader(self.family, BadQuestions(self.family, info.on_bad_question))

        def row(cell: Cell, answerer: Answerer) -> SweepRow:
            kept = journal(cell)
            return SweepRow(answerer, trusted(kept), kept.add, partial(log, cell))

        def ask(asked: Sequence[Question]) -> None:
            for share in shares(asked):
                rows = [row(*each) for cell, each in answerers.items() if share.cells is None or cell in share.cells]
                if rows:
                    sweep(rows, asked[share.questions], windows, progress)

        with asking(self._tasks, benchmark, info) as (loaded, questions):
            first = next(iter(answerers.values()))[1]
            reader = QuestionReader(first, info.generation, "vtpbench", benchmark=benchmark.label, numbered=questions)
            reader.tell = ask
            with suppress(QuestionsRead):
                evaluate(reader, loaded, info)
        return {cell_id: cost_of(cell, answerer) for cell_id, (cell, answerer) in answerers.items()}

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
            answerer.seconds, answerer.smallest = swept.seconds, swept.batch.smallest
        with asking(self._tasks, benchmark, cell.benchmark) as (loaded, questions):
            adapter = Adapter(
                answerer, cell.benchmark.generation, f"vtpbench {cell.id}", journal, progress, benchmark.label, questions
            )
            adapter.leave_out = partial(drop_requests, loaded.task, questions)
            with naming_questions(loaded.task, benchmark.label, adapter.asked, adapter.answers, questions):
                evaluation = evaluate(adapter, loaded, cell.benchmark)
        told = evaluated(evaluation, adapter.answers, loaded, questions, benchmark, cell.benchmark)
        skipped = {**questions.skipped, **answerer.bad.skipped}
        found, cost = outcome(cell, answerer.pipeline.pruner, shape, told), cost_of(cell, answerer)
        if swept is not None:  # what the model has replayed since for others is none of this cell's, unless it was asked more
            cost = swept if cost.seconds == swept.seconds else Swept(cost.seconds, swept.batch.with_more(cost.batch))
        return replace(found, skipped=skipped, generate_s=cost.seconds, batch=cost.batch)

    def _answerer(self, cell: Cell, picture_folder: PictureFolder | None) -> Answerer:
        """Put a cell's pruner on the model; what is impossible says so before anything is asked."""
        pruner, shape = build_pruner(cell), self.family.shape
        if cell.model.vision_tokens is None:
            pruner.needs(shape)
        else:
            schedule_of(cell, pruner, cell.model.vision_tokens, shape)
        graphs = cell.graphs and self.family.has_graphs
        pipeline = replace(self.pipeline(pruner, partial(_budget_of, cell)), share_prefix=cell.share_prefix, graphs=graphs)
        return Answerer(pipeline, self.batch_size, picture_folder, cell.benchmark.on_bad_question)

    def pipeline(self, pruner: Pruner, budget: BudgetRule) -> Pipeline:
        """Put the model and a cell's pruner together."""
        return Pipeline(self.family, pruner, budget)


def _budget_of(cell: Cell, n: int) -> int | None:
    return None if cell.is_vanilla else tokens_for(cell.budget, n)
