"""Time what a run does beside answering: journals, lmms-eval's scoring, tables, records; and how long a device waits for it.

The benchmark of `examples/own_benchmark` is asked again and again about its ten pictures, under four names. Every answer is made
up, after the time that a device would take, in which no processor is busy. First whoever asks scores too, then a process beside.

    python benchmarks/scoring.py --questions 2000 --answer-ms 3.6
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
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import yaml
from rich.console import Console

from vtpbench.harness.records.cell import Answer
from vtpbench.harness.run.answering import Answerer
from vtpbench.harness.run.engine import Engine
from vtpbench.harness.run.job import RunOptions, context_of, make_job, scorers_of
from vtpbench.harness.run.loop import run
from vtpbench.harness.run.progress import Progress
from vtpbench.harness.run.questions import DecodedImages, Question

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "own_benchmark"
TOKENS, LAYERS = 144, 8
"""Of the embedded model."""
NAMES = 4
"""Benchmarks: one is scored while the next is asked."""


def made_up(
    answer_s: float,
    answerer: Answerer,
    window: Sequence[Question],
    known: Mapping[str, Answer],
    decoded: Mapping[str, DecodedImages],
    _: object = None,
) -> Iterator[list[Answer]]:
    """Answer yes, within the budget, each after so many seconds."""
    counts = ((answerer.pipeline.budget(TOKENS) or TOKENS,) * LAYERS,)
    asked = [(question, decoded[question.sample]) for question in window if question.sample not in known]
    time.sleep(len(asked) * answer_s)
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
    path = folder / "suite.yaml"
    suite = yaml.safe_load(path.read_text(encoding="utf-8"))
    matrix = suite["matrix"]
    (benchmark,) = matrix["benchmarks"]
    matrix["benchmarks"] = [benchmark | {"label": f"photos {number}", "limit": count - number} for number in range(NAMES)]
    path.write_text(yaml.safe_dump(suite), encoding="utf-8")
    return path


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
    parser.add_argument("--answer-ms", type=float, default=3.6, help="what a device takes for one; 3.6 = of Table 1 on an H200")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        suite = asked_often(Path(scratch) / "benchmark", given.questions)
        for scorers in (0, 1):
            measure(suite, Path(scratch) / f"out{scorers}", given.questions, given.answer_ms, scorers)


def measure(suite: Path, out: Path, count: int, answer_ms: float, scorers: int) -> None:
    """Run the suite into a folder, and print what took how long."""
    job = make_job(str(suite), RunOptions(out, batch_size=64), print)
    context = context_of(job, job.store, "cpu", Progress(Console(quiet=True)), None)
    with ExitStack() as stack:
        stack.enter_context(patch.object(Answerer, "answer_window", lambda *window: made_up(answer_ms / 1000, *window)))
        kept, scored = Clock(stack, Engine, "sweep"), Clock(stack, Engine, "run")
        start = time.perf_counter()
        run(job.cells, replace(context, scorers=scorers_of(job, scorers) if scorers else None))
        seconds, cells = time.perf_counter() - start, len(job.cells)
    answers = sum(record.n for record in job.store.records())
    busy = answers * answer_ms / 1000
    where = "in a process beside" if scorers else "by whoever asks"
    print(f"{cells} cells, {answers} answers, scored {where}: {seconds:.1f} s, of which the device is busy {busy:.1f} s")
    print(f"  pictures and journals, all cells together: {1000 * (kept.seconds - busy) / answers:.3f} ms an answer")
    print(f"  scoring here, cell by cell: {1000 * scored.seconds / answers:.3f} ms an answer")
    rest = seconds - kept.seconds - scored.seconds
    print(f"  loading, tables, records and waiting: {1000 * rest / answers:.3f} ms an answer")


if __name__ == "__main__":
    main()
