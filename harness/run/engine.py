"""Where lmms-eval evaluates: its tasks ask and score, the steps of a `Pipeline` answer.

One engine holds one model, which is loaded once; every cell is one `simple_evaluate` call with a task object of its own.
lmms-eval's response cache, baseline test, result files and process groups are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from vtpbench.harness.host.images import pillow_settings
from vtpbench.harness.host.launcher import refuse_launcher
from vtpbench.harness.host.libraries import without_progress_bars
from vtpbench.harness.models.load import Described, describe_model, open_model
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.records.cell import Answer, Cell, Journal, tokens_for
from vtpbench.harness.records.outcome import Outcome
from vtpbench.harness.records.record import BudgetInfo
from vtpbench.harness.run.answer_faults import refuse_not_finite
from vtpbench.harness.run.answering import Answerer
from vtpbench.harness.run.bad_questions import BadQuestions
from vtpbench.harness.run.forecast import schedule_of
from vtpbench.harness.run.lmms_library import lmms, simple_evaluate
from vtpbench.harness.run.plan import build_pruner
from vtpbench.harness.run.questions import ChangedPicture, Question
from vtpbench.harness.run.scoring import Evaluated, outcome
from vtpbench.harness.run.sweep import SweepRow, sweep
from vtpbench.harness.run.task_loading import LoadedTask, TaskLoader, restored_draws
from vtpbench.harness.run.task_questions import NumberedQuestions, drop_requests, keep_askable, naming_questions
from vtpbench.harness.suite.generation import greedy
from vtpbench.pruners.errors import Impossible, UserError
from vtpbench.pruners.registry import build

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


class Adapter(lmms):  # type: ignore[misc] # lmms-eval is untyped
    """A model with a pruner as lmms-eval takes it.

    `generation` says how to decode, None = as each task asks; `journal` and `progress` are told of every finished batch;
    `benchmark` is what errors call the task, `numbered` which of its questions are there. `asked` and `answers` are known by
    sample as they come; `leave_out` is told of questions that were not asked, before the others are scored.
    """

    is_simple = True

    def __init__(
        self,
        answerer: Answerer,
        generation: Mapping[str, Any] | None,
        name: str,
        journal: Journal | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
        benchmark: str = "",
        numbered: NumberedQuestions | None = None,
    ) -> None:
        super().__init__()
        self.accelerator = None  # keeps lmms-eval from building one
        self.answerer, self.answers = answerer, dict[str, Answer]()
        self._generation, self._name, self._journal, self._progress = generation, name, journal, progress
        self.benchmark, self.numbered = benchmark, numbered or NumberedQuestions()
        self.asked: dict[str, Question] = {}
        self.leave_out: Callable[[Mapping[str, str]], None] = lambda skipped: None

    def __str__(self) -> str:
        return self._name  # enters the keys of lmms-eval's response cache, should somebody turn it on

    def clean(self) -> None:
        """Keep the model; the base class would delete it."""

    @restored_draws()  # scorers may draw, too: what they do must not depend on how the answers came
    def generate_until(self, requests: list[Any]) -> list[str]:
        """Answer all questions; those that the journal knows are not asked again."""
        questions = self.questions(requests)
        self.asked.update((q.sample, q) for q in questions)
        known = {sample: answer for sample, answer in self._journal.known().items() if answer.finite} if self._journal else {}
        self.answers.update((q.sample, known[q.sample]) for q in questions if q.sample in known)
        self._progress(len(self.answers), len(questions))
        try:
            for answers in self.answerer.answer(questions, known):
                if self._journal:
                    self._journal.add(answers)
                self.answers.update((a.sample, a) for a in answers)
                self._progress(len(self.answers), len(questions))
        except ChangedPicture as e:
            if self._journal:
                self._journal.remove()
            raise UserError(f"{e}; the answers so far are thrown away, run again to ask all questions anew") from e
        answered = [self.answers[q.sample] for q in questions if q.sample in self.answers]
        self.answers.clear()  # in the questions' order from here on, however the answers came
        self.answers.update((answer.sample, answer) for answer in answered)
        refuse_not_finite(answered, str(self.answerer.pipeline.model.model.dtype))
        self._leave_out_skipped(answered)
        return [self.answers[q.sample].text if q.sample in self.answers else "" for q in questions]

    def questions(self, requests: Sequence[Any]) -> list[Question]:
        """Read what lmms-eval asks."""
        picture_folder = self.answerer.picture_folder
        pictured = picture_folder.chosen(len(requests)) if picture_folder else frozenset()
        return [self._question(request, number in pictured) for number, request in enumerate(requests)]

    def _leave_out_skipped(self, answered: Sequence[Answer]) -> None:
        """Tell of questions that were not asked; raises `UserError` where none was."""
        skipped = self.answerer.bad.skipped
        if skipped and not answered:
            raise UserError(f"no question can be asked: {next(iter(skipped.values()))}")
        self.leave_out(skipped)

    def _question(self, request: Any, pictured: bool) -> Question:
        context, asked, doc_to_visual, doc_id, task, split = request.args
        family = self.answerer.pipeline.model.shape.family
        generation = greedy(asked, f"task '{task}'", family) if self._generation is None else self._generation
        sample = self.numbered.name(doc_id)
        return Question(
            sample=sample,
            text=context,
            images=lambda: doc_to_visual(self.task_dict[task][split][doc_id]),
            max_new_tokens=int(generation["max_new_tokens"]),
            until=tuple(generation["until"]),
            pictured=pictured,
            benchmark=self.benchmark or str(task),
        )

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        """Refuse: a prompt whose tokens leave on the way has no logits to score."""
        raise NotImplementedError("vtpbench answers generate_until tasks only")

    def generate_until_multi_round(self, requests: list[Any]) -> list[Any]:
        """Refuse tasks of several rounds, as `loglikelihood` is refused."""
        raise NotImplementedError("vtpbench answers generate_until tasks only")


class QuestionsRead(Exception):
    """The questions were told: nothing is to be scored."""


class QuestionReader(Adapter):
    """Takes the questions of a task as lmms-eval puts them, hands them to `tell`, and ends the evaluation."""

    tell: Callable[[list[Question]], None]

    @restored_draws()
    def generate_until(self, requests: list[Any]) -> list[str]:
        """Tell the questions; raises `QuestionsRead`."""
        self.tell(self.questions(requests))
        raise QuestionsRead


class Plugin(Adapter):
    """`lmms-eval --model vtpbench --model_args pretrained=...,pruner=random,budget=16`: one cell in lmms-eval's own hands.

    `budget` is a count, or a share such as `11.1%`; every further argument is an option of the pruner.
    """

    def __init__(
        self,
        pretrained: str,
        pruner: str = "vanilla",
        budget: str | int | None = None,
        dtype: str | None = None,
        attention: str = "sdpa",
        preprocessing: str | None = None,
        batch_size: int | str = 8,
        device: str | None = None,
        max_batch_size: object = None,
        **options: Any,
    ) -> None:
        del max_batch_size
        refuse_launcher()
        questions = _batch_size(batch_size)
        described = describe_model(pretrained, pretrained, dtype=dtype, attention=attention, preprocessing=preprocessing)
        wanted = _budget(budget, pruner)
        family = open_model(described, torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
        answerer = Answerer(Pipeline(family, build(pruner, options), wanted), questions)
        info = described.info
        super().__init__(answerer, None, f"vtpbench {info.weights} {info.tower} {pruner} {budget} {sorted(options.items())}")


def _behind_filter(task: Any, samples: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Take the samples as one filter of a task lets them through: lmms-eval lists all samples once for each of its filters."""
    filters = list(task.instances[0].filtered_resps)
    n = len(samples) // len(filters)
    start = n * filters.index(name)
    return samples[start : start + n]


def _budget_of(cell: Cell, n: int) -> int | None:
    return None if cell.is_vanilla else tokens_for(cell.budget, n)


def _batch_size(given: int | str) -> int:
    """Read what lmms-eval's command line was given, which also takes `auto`."""
    if not str(given).isdecimal() or int(given) < 1:
        raise UserError(f"batch_size {str(given)!r:.40}: give a number of questions, such as --batch_size 8")
    return int(given)


def _budget(budget: str | int | None, pruner: str) -> BudgetRule:
    if budget is None:
        if pruner != "vanilla":
            raise UserError(f"pruner '{pruner}' needs a budget: budget=64 or budget=11.1%")
        return lambda n: None
    text = str(budget)
    try:
        info = BudgetInfo(ratio=float(text[:-1]) / 100) if text.endswith("%") else BudgetInfo(tokens=int(text))
    except ValueError as e:
        raise UserError(f"budget {budget!r} is neither a count nor a share such as 11.1%") from e
    return lambda n: tokens_for(info, n)
