"""The answers of a cell given to lmms-eval once more, which asks and scores as it did in the run; no model, no picture."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vtpbench.harness.host.files import StorageError
from vtpbench.harness.host.libraries import output_to
from vtpbench.harness.records.cell import Answer, Sample
from vtpbench.harness.records.differences import differences
from vtpbench.harness.records.outcome import Outcome
from vtpbench.harness.records.record import Record
from vtpbench.harness.run.adapter import TextAnswers
from vtpbench.harness.run.attempt import attempt
from vtpbench.harness.run.evaluation import asking, evaluate, evaluated
from vtpbench.harness.run.scoring import Scored, scored, standard_error
from vtpbench.harness.run.task_loading import TaskLoader
from vtpbench.harness.run.task_questions import NumberedQuestions, drop_requests
from vtpbench.harness.suite.benchmarks import Benchmark
from vtpbench.pruners.errors import UserError

COMPARED = ("category", "prompt", "target", "score")
"""Columns that come from the task alone, or from an answer by it; `detail` is compared as what it holds."""


class Replay(TextAnswers):
    """Answers as a table has it; raises `UserError` where the questions are not those of the table."""

    def __init__(self, answers: Mapping[str, str], skipped: Mapping[str, str], task: Any, questions: NumberedQuestions) -> None:
        super().__init__()
        self._answers, self._skipped, self._task, self._questions = answers, skipped, task, questions

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Answer all questions."""
        asked = [self._questions.name(request.args[3]) for request in requests]
        for name in asked:
            if name not in self._answers and name not in self._skipped:
                raise UserError(f"question {name} has no row, and was not left out")
        if strange := sorted(set(self._answers) - set(asked)):
            raise UserError(f"question {strange[0]} is none that the benchmark asks")
        if both := sorted(set(self._answers) & set(self._skipped)):
            raise UserError(f"question {both[0]} has a row, and was left out as well")
        drop_requests(self._task, self._questions, self._skipped)
        return [self._answers.get(name, "") for name in asked]


class Replays:
    """Scores cells again; what is known of a task is found once."""

    def __init__(self) -> None:
        self._tasks: dict[str, TaskLoader] = {}

    def faults(self, benchmark: Benchmark, record: Record, rows: Sequence[Sample]) -> Iterator[str]:
        """Say where a record, or its table, is not what the official scorers make of the table's answers."""
        found = attempt(lambda: self._score(benchmark, record, rows), StorageError, record.cell_id)
        if isinstance(found, Outcome):
            yield f"its answers cannot be scored again: {(found.reason or '').partition(chr(10))[0]}"
            return
        error = standard_error(record.benchmark, [row.score for row in found.rows], found.total)
        given = {"score": record.benchmark.scale * found.total, "stderr": error, "metrics": found.metrics}
        said = {"score": record.score, "stderr": record.stderr, "metrics": record.metrics}
        yield from (f"in the record and scored again, {told}" for told in differences(said, given))
        again = {row.sample: row for row in found.rows}
        told = [(row.sample, line) for row in rows for line in differences(_facts(row), _facts(again[row.sample]))]
        if told:
            more = f"; so do {len(told) - 1} more values" if len(told) > 1 else ""
            yield f"question {told[0][0]} differs in its table and scored again: {told[0][1]}{more}"

    def _score(self, benchmark: Benchmark, record: Record, rows: Sequence[Sample]) -> Scored:
        answers = {row.sample: Answer(row.sample, row.answer, tuple(row.images.split()), (), ()) for row in rows}
        texts = {name: answer.text for name, answer in answers.items()}
        tasks = self._tasks.setdefault(record.benchmark.dataset, TaskLoader())
        with _quietly(), asking(tasks, benchmark, record.benchmark) as (loaded, questions):
            evaluation = evaluate(Replay(texts, record.skipped, loaded.task, questions), loaded, record.benchmark)
        return scored(record.benchmark, evaluated(evaluation, answers, loaded, questions, benchmark, record.benchmark))


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep what scorers print from the terminal."""
    with TemporaryDirectory() as scratch, output_to(Path(scratch) / "said"):
        yield


def _facts(row: Sample) -> dict[str, Any]:
    return {name: getattr(row, name) for name in COMPARED} | {"detail": json.loads(row.detail)}
