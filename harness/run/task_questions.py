"""Questions of a task of lmms-eval: which of them its code cannot put, and at which one an evaluation broke."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from vtpbench.harness.records.cell import Answer
from vtpbench.harness.run.bad_questions import BadQuestion, is_of_question, problem_of
from vtpbench.harness.run.questions import Question
from vtpbench.harness.run.subset import keep_questions
from vtpbench.pruners.errors import UserError


@dataclass(frozen=True)
class NumberedQuestions:
    """The questions of a task that its code can put.

    Attributes
    ----------
    numbers : of each, in the task; None where they are all there
    skipped : what is wrong with the others, by number

    """

    numbers: tuple[int, ...] | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)

    def name(self, position: int) -> str:
        """Name the question that lmms-eval calls number `position`."""
        return str(position if self.numbers is None else self.numbers[position])


def keep_askable(task: Any, limit: int | None) -> NumberedQuestions:
    """Leave a task, of its first `limit` questions, those whose text and target its code can make; it numbers them anew."""
    problems: dict[str, str] = {}
    numbers = []
    docs = task.eval_docs_no_media
    total = len(docs) if limit is None else min(limit, len(docs))
    for number in range(total):
        try:
            doc = docs[number]
            task.doc_to_text(doc), task.doc_to_target(doc)
        except Exception as e:
            if not is_of_question(e):
                raise
            problems[str(number)] = problem_of(e)
        else:
            numbers.append(number)
    if not problems:
        return NumberedQuestions()
    if not numbers:
        raise UserError(f"no question can be asked: {next(iter(problems.values()))}")
    keep_questions(task, numbers)
    return NumberedQuestions(tuple(numbers), problems)


def drop_requests(task: Any, questions: NumberedQuestions, skipped: Mapping[str, str]) -> None:
    """Take questions that were left out from what is scored."""
    if skipped:
        task._instances = [each for each in task._instances if questions.name(each.doc_id) not in skipped]


@contextmanager
def naming_questions(
    task: Any, benchmark: str, asked: Mapping[str, Question], answers: Mapping[str, Answer], questions: NumberedQuestions
) -> Iterator[None]:
    """Where the code of a task breaks inside, making a question's text or scoring its answer, name the question.

    Parameters
    ----------
    task : that is evaluated
    benchmark : to be named
    asked : questions that were put so far, by sample
    answers : to them, by sample
    questions : which of the task's they are

    """
    try:
        yield
    except Exception as e:
        broken = _find_broken(task, benchmark, asked, answers, questions) if is_of_question(e) else None
        if broken is None:
            raise
        raise broken from e


def _find_broken(
    task: Any, benchmark: str, asked: Mapping[str, Question], answers: Mapping[str, Answer], questions: NumberedQuestions
) -> UserError | None:
    for position, doc in enumerate(task.eval_docs_no_media):
        name = questions.name(position)
        text = asked[name].text if name in asked else ""
        try:
            text = text or str(task.doc_to_text(doc))
            task.doc_to_target(doc)
        except Exception as e:
            return BadQuestion(name, benchmark, text, (), problem_of(e))
        if name in answers:
            try:
                task.process_results(doc, [answers[name].text])
            except Exception as e:
                said = f"scoring the answer {answers[name].text[:80]!r} breaks with {problem_of(e)}"
                return BadQuestion(name, benchmark, text, _shown(asked.get(name)), said, advice="mend the task's code")
    return None


def _shown(question: Question | None) -> Sequence[object]:
    """Decode the pictures of a question once more, to name their sizes; none where that fails."""
    try:
        return [] if question is None else question.pictures()
    except Exception:  # only looked at for a message about something else
        return []
