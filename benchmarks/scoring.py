"""Time what a run does beside answering, a GPU idle meanwhile: journals, lmms-eval's scoring, tables, records.

The benchmark of `examples/own_benchmark` is asked again and again about its ten pictures; every answer is made up at once.

    python benchmarks/scoring.py --questions 2000
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from rich.console import Console

from vtpbench.harness.records.cell import Answer
from vtpbench.harness.run.answering import Answerer
from vtpbench.harness.run.engine import Engine
from vtpbench.harness.run.job import RunOptions, execute, make_job
from vtpbench.harness.run.progress import Progress
from vtpbench.harness.run.questions import DecodedImages, Question

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "own_benchmark"
TOKENS, LAYERS = 144, 8
"""Of the embedded model."""


def made_up(
    answerer: Answerer,
    window: Sequence[Question],
    known: Mapping[str, Answer],
    decoded: Mapping[str, DecodedImages],
    _: object = None,
) -> Iterator[list[Answer]]:
    """Answer yes, within the budget."""
    counts = ((answerer.pipeline.budget(TOKENS) or TOKENS,) * LAYERS,)
    asked = [(question, decoded[question.sample]) for question in window if question.sample not in known]
    answers = [Answer(q.sample, "yes", own.names, (TOKENS,), counts, (), True, True, 2, own.perceptual_hash) for q, own in asked]
    for start in range(0, len(answers), answerer.batch_size):
        yield answers[start : start + answerer.batch_size]


def asked_often(folder: Path, count: int) -> Path:
    """Copy the example with so many questions, each its own; gives its suite."""
    shutil.copytree(EXAMPLE, folder)
    with (folder / "questions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    many = sorted((rows[n % len(rows)] | {"question": f"{rows[n % len(rows)]['question']} ({n})"} for n in range(count)), key=str)
    with (folder / "questions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(many)
    subprocess.run([sys.executable, "pack.py"], cwd=folder, check=True, capture_output=True)
    return folder / "suite.yaml"


class Clock:
    """Seconds that a method took, all calls together."""

    def __init__(self, stack: ExitStack, owner: type, name: str) -> None:
        """Watch the method until the stack ends."""
        self.seconds, method = 0.0, getattr(owner, name)

        def timed(*given: object, **named: object) -> object:
            start = time.perf_counter()
            try:
                return method(*given, **named)
            finally:
                self.seconds += time.perf_counter() - start

        stack.enter_context(patch.object(owner, name, timed))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=2000)
    count = parser.parse_args().questions
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        suite = asked_often(Path(scratch) / "benchmark", count)
        job = make_job(str(suite), RunOptions(Path(scratch) / "out", batch_size=64), print)
        stack.enter_context(patch.object(Answerer, "answer_window", made_up))
        kept, scored = Clock(stack, Engine, "sweep"), Clock(stack, Engine, "run")
        start = time.perf_counter()
        execute(job, "cpu", Progress(Console(quiet=True)))
        seconds, cells = time.perf_counter() - start, len(job.cells)
    answers = cells * count
    print(f"{cells} cells of {count} questions: {seconds:.1f} s")
    print(f"pictures and journals, all cells together: {1000 * kept.seconds / answers:.3f} ms an answer")
    print(f"scoring, cell by cell: {1000 * scored.seconds / answers:.3f} ms an answer")
    rest = seconds - kept.seconds - scored.seconds
    print(f"loading, tables and records: {1000 * rest / answers:.3f} ms an answer, {rest:.1f} s")


if __name__ == "__main__":
    main()
