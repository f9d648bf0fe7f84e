"""Play the scheduler of distributed runs with scripted workers: how near to ideal it comes, and whether deaths lose anything.

    python benchmarks/scheduler.py [--workers 64] [--kills 200] [--seed 0]

Time is simulated; the scheduler is the real one, on the real question counts of suite `llava15`. Each worker has a speed of its
own (drawn between 0.8 and 1.2 of the same answers a second), needs time to read a benchmark's questions, to decode and encode
pictures again where the rows of a window are shared, and to score a cell, and may be killed; the batches that it has finished
until then stay told, and another comes a minute later. Ideal is all answers over the sum of the speeds. Printed are the share of
ideal speed, what workers spent their time on, answers that were lost or told twice, how long parts take, and the processor time
that the scheduler itself took. Then the real driver writes 50,000 answers, see `driver_cost.py`.
"""

from __future__ import annotations

import argparse
import heapq
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator

import numpy as np
from driver_cost import describe, driver_cost

from vtpbench.harness.distribute.messages import AskPart, CloseSweep, MeasureCell, OpenSweep, Work
from vtpbench.harness.distribute.parts import Part
from vtpbench.harness.distribute.scheduler import Scheduler
from vtpbench.harness.distribute.shared_sweep import SharedSweep
from vtpbench.harness.records.cell import Answer
from vtpbench.harness.suite.suite import load

ROWS = 46
"""Cells of one benchmark: Table 1 has about 460 for ten benchmarks, seeds included."""
WINDOW, BATCH = 256, 64
QUESTIONS_S = 60.0
"""That a worker answers a second, of one row."""
READ_S, SCORE_S = 10.0, 5.0
"""To open a sweep, and to score a cell, beside a second for 10,000 questions each."""
PICTURE_S = 0.011
"""To read a picture, decode and preprocess it, in one thread: lost where the rows of a window are shared between workers."""
TOWER_S = 0.001
"""To encode a picture on an H200: lost wherever the rows of a window are asked in several parts."""
PICTURES = {"vqav2": 40_504}
"""Pictures of a benchmark; elsewhere every question counts as one of its own."""
RESTART_S = 60.0


class Simulation:
    """Workers in simulated time, the next event first."""

    def __init__(self, workers: int, kills: int, seed: int) -> None:
        self.draw, self.now, self.spent_s = random.Random(seed), 0.0, 0.0
        sizes = {label: benchmark.limit or benchmark.n or 0 for label, benchmark in load("llava15").benchmarks.items()}
        self.sizes = {tuple(f"{label} {row}" for row in range(ROWS)): size for label, size in sizes.items()}
        sweeps = [SharedSweep(cells, "model", {cell: {} for cell in cells}, ROWS * size) for cells, size in self.sizes.items()]
        self.scheduler = Scheduler(sweeps, lambda: self.now)
        self.told = {cell: np.zeros(size, np.uint8) for cells, size in self.sizes.items() for cell in cells}
        self.measured: list[str] = []
        self.speed: dict[int, float] = {}
        self.sweep: dict[int, tuple[str, ...]] = {}
        self.busy: dict[int, tuple[Work, float]] = {}
        """What each worker is at, and since when; for a part, since its pictures are there."""
        self.read: set[tuple[tuple[str, ...], int]] = set()
        """Windows whose pictures somebody has decoded, by sweep and start."""
        self.last: dict[int, tuple[tuple[str, ...], int]] = {}
        """The window that each worker has had last."""
        self.parts_s: list[float] = []
        self.spent: Counter[str] = Counter()
        """Seconds of workers, by what they were for."""
        self.events: list[tuple[float, int, str]] = []
        self.hired, self.killed, self.workers = 0, 0, workers
        for _ in range(workers):
            self.hire(QUESTIONS_S * self.draw.uniform(0.8, 1.2))
        self.ideal_s = ROWS * sum(sizes.values()) / sum(self.speed.values())
        for _ in range(kills):
            heapq.heappush(self.events, (self.draw.uniform(0, self.ideal_s), -1, "kill"))

    def hire(self, speed: float, after_s: float = 0.0) -> None:
        """Add a worker that is ready after a while."""
        self.hired += 1
        self.speed[self.hired] = speed
        heapq.heappush(self.events, (self.now + after_s, self.hired, "ready"))

    def play(self) -> None:
        """Go from event to event until all is measured."""
        idle: set[int] = set()
        while not self.scheduler.finished:
            self.now, worker, what = heapq.heappop(self.events)
            if what == "kill":
                alive = sorted(self.busy)
                if alive:
                    self.kill(self.draw.choice(alive))
            elif what == "ready":
                idle.add(worker)
            elif worker in self.busy:
                self.finish(worker)
                idle.add(worker)
            for each in sorted(idle):
                if (work := self.timed(self.scheduler.next, each, self.workers)) is not None:
                    idle.discard(each)
                    self.begin(each, work)

    def begin(self, worker: int, work: Work) -> None:
        """Let a worker begin with something."""
        again_s = 0.0
        if isinstance(work, AskPart):
            again_s = sum(self.again(worker, start) * self.pictures(work.part, start) for start in self.windows(work.part))
            seconds = work.asked / self.speed[worker]
            self.parts_s.append(again_s + seconds)
            self.spent["pictures again"] += again_s
        elif isinstance(work, OpenSweep):
            seconds = READ_S + self.sizes[work.cells] / 10_000
            self.spent["reading questions"] += seconds
        else:
            seconds = SCORE_S if isinstance(work, MeasureCell) else 0.1
            self.spent["scoring"] += seconds
        self.busy[worker] = work, self.now + again_s
        heapq.heappush(self.events, (self.now + again_s + seconds, worker, "done"))

    def windows(self, part: Part) -> range:
        """Give the starts of a part's windows."""
        return range(part.start, part.stop, WINDOW)

    def again(self, worker: int, start: int) -> float:
        """Say how long a worker takes to see each picture of a window again; what happens once is part of its speed."""
        window = self.sweep[worker], start
        held, self.last[worker] = self.last.get(worker) == window, window
        if window not in self.read:
            self.read.add(window)
            return 0.0
        return TOWER_S if held else PICTURE_S + TOWER_S

    def pictures(self, part: Part, start: int) -> float:
        """Say how many pictures the questions of a window show."""
        label = part.cells[0].split()[0]
        size = next(size for cells, size in self.sizes.items() if part.cells[0] in cells)
        return (min(start + WINDOW, part.stop) - start) * PICTURES.get(label, size) / size

    def batches(self, work: AskPart) -> Iterator[tuple[str, list[int]]]:
        """Give the batches of a part in the order in which a worker tells them: window by window, row by row."""
        for start in self.windows(work.part):
            for cell in work.part.cells:
                known = {int(sample) for sample in work.known.get(cell, {})}
                for first in range(start, min(start + WINDOW, work.part.stop), BATCH):
                    asked = [n for n in range(first, min(first + BATCH, work.part.stop)) if n not in known]
                    if asked:
                        yield cell, asked

    def finish(self, worker: int) -> None:
        """Let a worker tell what it did."""
        work, _ = self.busy.pop(worker)
        if isinstance(work, OpenSweep):
            self.sweep[worker] = work.cells
            self.timed(self.scheduler.opened, worker, [str(n) for n in range(self.sizes[work.cells])], WINDOW)
        elif isinstance(work, AskPart):
            for cell, asked in self.batches(work):
                self.told[cell][asked] += 1
            self.timed(self.scheduler.part_done, worker)
        elif isinstance(work, CloseSweep):
            self.sweep.pop(worker)
            self.timed(self.scheduler.closed, worker, {})
        elif isinstance(work, MeasureCell):
            self.measured.append(work.cell)
            self.timed(self.scheduler.measured, worker, work.cell)

    def kill(self, worker: int) -> None:
        """Let a worker die in the middle of something; it has told the batches that were finished by then."""
        work, since = self.busy.pop(worker)
        if isinstance(work, AskPart):
            answers_left = (self.now - since) * self.speed[worker]
            for cell, asked in self.batches(work):
                answers_left -= len(asked)
                if answers_left < 0:
                    break
                self.told[cell][asked] += 1
                self.timed(self.scheduler.answered, worker, cell, [Answer(str(n), "", (), (), ()) for n in asked])
        self.sweep.pop(worker, None)
        self.killed += 1
        self.timed(self.scheduler.lost, worker, "killed")
        self.spent["starting again"] += RESTART_S
        self.hire(self.speed[worker], RESTART_S)

    def timed(self, call, *arguments):  # type: ignore[no-untyped-def] # any method of the scheduler
        """Call the scheduler, and count the time it takes."""
        start = time.process_time()
        result = call(*arguments)
        self.spent_s += time.process_time() - start
        return result


def main() -> None:
    """Play, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    tracemalloc.start()
    played = Simulation(chosen.workers, chosen.kills, chosen.seed)
    played.play()
    total = ROWS * sum(played.sizes.values())
    lost = sum(int((told == 0).sum()) for told in played.told.values())
    doubled = sum(int((told > 1).sum()) for told in played.told.values())
    given_up = len(played.scheduler.failed)
    print(f"{total:,} answers, {chosen.workers} workers, {played.killed} killed: {played.now / 3600:.2f} h simulated")
    print(f"{100 * played.ideal_s / played.now:.1f} % of ideal speed")
    print(f"{lost} answers lost, {doubled} told twice, {given_up} cells given up")
    spent = {what: 100 * seconds / (chosen.workers * played.now) for what, seconds in played.spent.items()}
    print("of all time: " + ", ".join(f"{what} {share:.1f} %" for what, share in sorted(spent.items())))
    print(f"{len(played.measured)} cells measured, {len(set(played.measured))} of them different")
    middle, longest = np.percentile(played.parts_s, [50, 99])
    print(f"{len(played.parts_s)} parts: half of them take {middle:.0f} s or less, 99 % {longest:.0f} s or less")
    share = 1e3 * 1e3 * played.spent_s / total
    print(
        f"scheduler: {share:.2f} ms of the processor for 1,000 answers; peak {tracemalloc.get_traced_memory()[1] / 2**20:.0f} MiB"
    )
    tracemalloc.stop()
    print(describe(driver_cost(50_000, BATCH), BATCH))


if __name__ == "__main__":
    main()
