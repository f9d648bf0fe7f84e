"""What the one writer of a distributed run spends on answers: the real driver, journals and word for `status`, scripted workers.

    python benchmarks/driver_cost.py [--answers 50000] [--batch 64]

Rows of the demo suite stand for any others; answers are as long as those of a model with 32 decoder layers. Printed is the
time of the processor and of the wall for 1,000 answers. The second depends on the disk: each batch is written before the next.
"""

from __future__ import annotations

import argparse
import io
import time
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from vtpbench.harness.distribute.driver import run_distributed
from vtpbench.harness.distribute.messages import (
    AskPart,
    CellMeasured,
    Closed,
    CloseSweep,
    Event,
    MeasureCell,
    NewAnswers,
    Opened,
    OpenSweep,
    PartDone,
    Ready,
    Work,
)
from vtpbench.harness.records.cell import Answer
from vtpbench.harness.records.environment import environment
from vtpbench.harness.records.outcome import Outcome
from vtpbench.harness.run.job import RunOptions, make_job
from vtpbench.harness.run.progress import Progress

LAYERS, ROWS_ONLY = 32, ("benchmark=demo-exist",)
IMAGE = "0" * 64


@dataclass(frozen=True)
class DriverCost:
    """For 1,000 answers: milliseconds of the processor, and of the wall."""

    answers: int
    processor_ms: float
    wall_ms: float


class ScriptedWorker:
    """One worker that answers at once; implements `vtpbench.harness.distribute.driver.WorkerPool`."""

    def __init__(self, ready: Ready, questions: int, batch: int) -> None:
        self._batch, self._questions = batch, questions
        self._told: deque[Event] = deque([ready])
        self.answers, self.spent_s = 0, 0.0

    def start(self, worker: Hashable, work: Work) -> None:
        """Do at once what is asked."""
        start = time.process_time()
        if isinstance(work, OpenSweep):
            self._told.append(Opened(tuple(map(str, range(self._questions))), 4 * self._batch))
        elif isinstance(work, AskPart):
            self._told.extend(self._answer(work))
        elif isinstance(work, CloseSweep):
            self._told.append(Closed())
        elif isinstance(work, MeasureCell):
            self._told.append(CellMeasured(work.cell, Outcome("failed", "nothing is scored here"), 0.0))
        self.spent_s += time.process_time() - start

    def events(self) -> Iterator[tuple[Hashable, Event]]:
        """Tell one thing."""
        yield "1", self._told.popleft()

    def _answer(self, work: AskPart) -> Iterator[Event]:
        for cell in work.part.cells:
            for first in range(work.part.start, work.part.stop, self._batch):
                samples = range(first, min(first + self._batch, work.part.stop))
                counts = (tuple(range(64, 64 + LAYERS)),)
                answers = tuple(Answer(str(n), "A man in a red jacket", (IMAGE,), (576,), counts) for n in samples)
                self.answers += len(answers)
                yield NewAnswers(cell, answers)
        yield PartDone()


def driver_cost(answers: int, batch: int) -> DriverCost:
    """Let the driver write about so many answers, in batches."""
    with TemporaryDirectory() as folder:
        job = make_job("demo", RunOptions(Path(folder), ROWS_ONLY), lambda line: None)
        ready = Ready("here", 0, environment("cpu"), frozenset(cell.id for cell in job.cells))
        pool = ScriptedWorker(ready, answers // len(job.cells), batch)
        wall, processor = time.perf_counter(), time.process_time()
        run_distributed(job, Progress(Console(file=io.StringIO())), pool)
        spent_s = time.process_time() - processor - pool.spent_s
        wall_s = time.perf_counter() - wall - pool.spent_s
    return DriverCost(pool.answers, 1e6 * spent_s / pool.answers, 1e6 * wall_s / pool.answers)


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=64)
    chosen = parser.parse_args()
    print(describe(driver_cost(chosen.answers, chosen.batch), chosen.batch))


def describe(cost: DriverCost, batch: int) -> str:
    """Say it in a line."""
    times = f"{cost.processor_ms:.0f} ms of the processor, {cost.wall_ms:.0f} ms of the wall for 1,000 answers"
    return f"driver, {cost.answers:,} answers in batches of {batch}: {times}"


if __name__ == "__main__":
    main()
