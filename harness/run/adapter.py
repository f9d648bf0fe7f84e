"""A model with a pruner as lmms-eval takes it: questions in, answers out, and refusals of what has no answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vtpbench.harness.records.cell import Answer, Journal
from vtpbench.harness.run.answer_faults import refuse_not_finite, trusted
from vtpbench.harness.run.answering import Answerer
from vtpbench.harness.run.lmms_library import lmms
from vtpbench.harness.run.questions import ChangedPicture, Question
from vtpbench.harness.run.task_loading import restored_draws
from vtpbench.harness.run.task_questions import NumberedQuestions
from vtpbench.harness.suite.generation import greedy
from vtpbench.pruners.errors import UserError


class TextAnswers(lmms):  # type: ignore[misc] # lmms-eval is untyped
    """What lmms-eval may ask for answers in words, and nothing else."""

    is_simple = True

    def __init__(self) -> None:
        super().__init__()
        self.accelerator = None  # keeps lmms-eval from building one

    def clean(self) -> None:
        """Keep the model; the base class would delete it."""

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        """Refuse: a prompt whose tokens leave on the way has no logits to score."""
        raise NotImplementedError("vtpbench answers generate_until tasks only")

    def generate_until_multi_round(self, requests: list[Any]) -> list[Any]:
        """Refuse tasks of several rounds, as `loglikelihood` is refused."""
        raise NotImplementedError("vtpbench answers generate_until tasks only")


class Adapter(TextAnswers):
    """A model with a pruner as lmms-eval takes it.

    `generation` says how to decode, None = as each task asks; `journal` and `progress` are told of every finished batch;
    `benchmark` is what errors call the task, `numbered` which of its questions are there. `asked` and `answers` are known by
    sample as they come; `leave_out` is told of questions that were not asked, before the others are scored.
    """

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
        self.answerer, self.answers = answerer, dict[str, Answer]()
        self._generation, self._name, self._journal, self._progress = generation, name, journal, progress
        self.benchmark, self.numbered = benchmark, numbered or NumberedQuestions()
        self.asked: dict[str, Question] = {}
        self.leave_out: Callable[[Mapping[str, str]], None] = lambda skipped: None

    def __str__(self) -> str:
        return self._name  # enters the keys of lmms-eval's response cache, should somebody turn it on

    @restored_draws()  # scorers may draw, too: what they do must not depend on how the answers came
    def generate_until(self, requests: list[Any]) -> list[str]:
        """Answer all questions; those that the journal knows are not asked again."""
        questions = self.questions(requests)
        self.asked.update((q.sample, q) for q in questions)
        known = trusted(self._journal) if self._journal else {}
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
            strip=bool(generation.get("strip")),
            pictured=pictured,
            benchmark=self.benchmark or str(task),
        )


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
