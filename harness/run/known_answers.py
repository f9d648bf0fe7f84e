"""Score a cell whose questions are all answered: no model, no device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vtpbench.harness.records.cell import Answer
from vtpbench.harness.records.outcome import Outcome
from vtpbench.harness.run.adapter import TextAnswers
from vtpbench.harness.run.evaluation import asking, evaluate, evaluated
from vtpbench.harness.run.plan import build_pruner
from vtpbench.harness.run.scoring import outcome
from vtpbench.harness.run.task_loading import TaskLoader, restored_draws
from vtpbench.harness.run.task_questions import NumberedQuestions
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    from vtpbench.harness.run.scoring_process import AnsweredCell


class KnownAnswers(TextAnswers):
    """Gives answers that are known as a model gives its own; raises `UserError` for a question without one."""

    def __init__(self, known: Mapping[str, Answer], numbered: NumberedQuestions) -> None:
        super().__init__()
        self.answers: dict[str, Answer] = {}
        self._known, self._numbered = known, numbered

    @restored_draws()  # as where a model answers: scorers may draw
    def generate_until(self, requests: list[Any]) -> list[str]:
        """Answer all questions."""
        for name in (self._numbered.name(request.args[3]) for request in requests):
            if name not in self._known:
                raise UserError(f"question {name} has no answer yet")
            self.answers[name] = self._known[name]
        return [answer.text for answer in self.answers.values()]


def score(answered: AnsweredCell, known: Mapping[str, Answer], tasks: TaskLoader) -> Outcome:
    """Score a cell as where its questions are asked; raises `UserError` where not all have an answer."""
    cell, benchmark = answered.cell, answered.benchmark
    with asking(tasks, benchmark, cell.benchmark) as (loaded, questions):
        model = KnownAnswers(known, questions)
        evaluation = evaluate(model, loaded, cell.benchmark)
    told = evaluated(evaluation, model.answers, loaded, questions, benchmark, cell.benchmark)
    found = outcome(cell, build_pruner(cell), answered.shape, told)
    cost = answered.swept
    return replace(found, skipped=dict(questions.skipped), generate_s=cost.seconds, batch=cost.batch)
