"""Kill a run again and again with SIGKILL, at random times, and compare what comes out with an undisturbed run.

    python benchmarks/kill_and_resume.py --kills 10 --seed 0
    python benchmarks/kill_and_resume.py --workers 2 --kills 5 --worker-kills 20

A run is started, killed after a random time, and started again, until the kills are used up; the last one may finish. With
`--workers` it is a run over Ray, and kills hit either the process that was started or one of its workers, in an order that is
drawn. Scores and the hashes of the per-sample tables, kept tokens included, must then be those of an undisturbed run in one
process, and neither a journal nor a process may be left. A run that ends before it is complete, as Ray does not start in time or
a cell's worker was killed three times, is counted apart: the same command must complete it.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from vtpbench.harness.records.run_state import read_states
from vtpbench.harness.records.store import Store

COMMAND = [sys.executable, "-m", "vtpbench", "run", "demo"]
PRUNERS = "[random, visionzip, {fastv: {layer: 1}}, tome]"
MATRIX = f"matrix={{pruners: {PRUNERS}, budgets: [48, 32, 16], benchmarks: [demo-exist, demo-read], seeds: [0]}}"
GONE_S = 120.0
"""Seconds within which all processes of a run must be gone that was killed; two of Ray's agents take a minute to see it."""


def start(folder: Path, limit: int, workers: int = 0) -> subprocess.Popen[bytes]:
    """Start a run, on as many workers or in one process."""
    shared = ["--workers", str(workers), "--device", "cpu"] if workers else []
    command = [*COMMAND, "--set", MATRIX, "--limit", str(limit), "--out", str(folder), *shared]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def outcome(folder: Path) -> dict[str, tuple[str, float | None, str | None]]:
    """Read of each cell its status, score and the hash of its table."""
    return {r.cell_id: (r.status, r.score, r.samples_sha256) for r in Store(folder / "demo", print).records()}


@dataclass
class Campaign:
    """One folder whose runs are killed.

    Attributes
    ----------
    folder : of the results
    limit : questions of each benchmark
    workers : of a run over Ray; 0 = one process
    whole : what an undisturbed run has found
    done : kills so far, of the run and of workers
    ended : runs that were through before the next kill, of which `differing` have other results than the undisturbed one
    incomplete : runs that ended with cells that had failed, or had no record
    left : processes that were there two minutes after their run was killed

    """

    folder: Path
    limit: int
    workers: int
    whole: dict[str, tuple[str, float | None, str | None]]
    done: dict[str, int] = field(default_factory=lambda: {"run": 0, "worker": 0})
    ended: int = 0
    differing: int = 0
    incomplete: int = 0
    left: int = 0
    _run: subprocess.Popen[bytes] | None = None

    def kill(self, what: str, after_s: Callable[[], float]) -> None:
        """Kill the run or a worker so long after it has begun; a run that ends before is begun anew, so that every kill hits.

        The time is drawn again then: one that is longer than a whole run would never come.
        """
        while True:
            run = self._run = self._run or start(self.folder, self.limit, self.workers)
            victim = self._awaited(run, what, after_s())
            if victim is None:
                if self._end():
                    shutil.rmtree(self.folder)
                continue
            children = psutil.Process(run.pid).children(recursive=True)
            victim.kill()
            self.done[what] += 1
            if what == "run":
                run.wait()
                self._run = None
                self.left += len(psutil.wait_procs(children, GONE_S)[1])
            return

    def finish(self) -> bool:
        """Let the last run end; says whether its results are those of the undisturbed one, and no journal is left."""
        self._run = self._run or start(self.folder, self.limit, self.workers)
        if not self._end():
            self._run = start(self.folder, self.limit, self.workers)
            self._end()
        return outcome(self.folder) == self.whole and not list((self.folder / "demo" / "journal").glob("*.jsonl"))

    def _end(self) -> bool:
        """Wait for the run, and compare; says whether it is complete."""
        assert self._run is not None, "it was started"
        self._run.wait()
        self._run = None
        found = outcome(self.folder)
        done = {cell: result for cell, result in found.items() if result[0] != "failed"}
        self.ended += 1
        self.differing += any(result != self.whole[cell] for cell, result in done.items())
        self.incomplete += len(done) < len(self.whole)
        return len(done) == len(self.whole)

    def _awaited(self, run: subprocess.Popen[bytes], what: str, after_s: float) -> psutil.Process | None:
        """Wait, and give the process to kill; None where the run has ended before."""
        while what == "worker" and run.poll() is None and not self._living(run):
            time.sleep(0.5)
        try:
            run.wait(after_s)
        except subprocess.TimeoutExpired:
            living = self._living(run) if what == "worker" else [psutil.Process(run.pid)]
            return living[int(after_s * 1000) % len(living)] if living else self._awaited(run, what, after_s)
        return None

    def _living(self, run: subprocess.Popen[bytes]) -> list[psutil.Process]:
        """Workers of a run, as it tells `vtpbench status`, as far as these processes are below it."""
        try:
            below = {process.pid: process for process in psutil.Process(run.pid).children(recursive=True)}
        except psutil.NoSuchProcess:
            return []
        told = [state for state in read_states(self.folder / "demo") if state.pid == run.pid]
        return [below[worker.pid] for state in told for worker in state.workers if worker.pid in below]


def main() -> None:
    """Kill, resume, compare; exit code 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=0, help="over Ray; by default one process")
    parser.add_argument("--worker-kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=80, help="questions of each benchmark")
    parser.add_argument("--longest", type=float, default=40.0, help="seconds until a kill, at most")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        start(Path(scratch) / "whole", arguments.limit).wait()
        whole = outcome(Path(scratch) / "whole")
        campaign = Campaign(Path(scratch) / "killed", arguments.limit, arguments.workers, whole)
        kills = ["run"] * arguments.kills + ["worker"] * arguments.worker_kills
        for what in draw.sample(kills, len(kills)):
            campaign.kill(what, partial(draw.uniform, 1.0, arguments.longest))
            print(f"killed {campaign.done['run']} runs, {campaign.done['worker']} workers", file=sys.stderr, flush=True)
        same = campaign.finish()
    print(f"{campaign.done['run']} runs and {campaign.done['worker']} workers killed; processes left: {campaign.left}")
    print(f"{campaign.ended} runs came to their end, {campaign.differing} of them with other results than the undisturbed run")
    print(f"{campaign.incomplete} runs ended before they were complete, and were followed by the same command")
    print(f"cells {len(whole)}; the last equal, and no journal left: {same}")
    sys.exit(0 if same and not campaign.differing and not campaign.left else 1)


if __name__ == "__main__":
    main()
