"""Kill a run again and again with SIGKILL, at random times, and compare what comes out with an undisturbed run.

    python benchmarks/kill_and_resume.py --kills 10 --seed 0

A run is started, killed after a random time, and started again, until the kills are used up; the last one may finish. Scores and
the hashes of the per-sample tables, kept tokens included, must then be those of an undisturbed run, and no journal may be left.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from vtpbench.harness.records.store import Store

COMMAND = [sys.executable, "-m", "vtpbench", "run", "demo"]
PRUNERS = "[random, visionzip, {fastv: {layer: 1}}, tome]"
MATRIX = f"matrix={{pruners: {PRUNERS}, budgets: [48], benchmarks: [demo-exist, demo-read], seeds: [0]}}"


def start(folder: Path, limit: int) -> subprocess.Popen[bytes]:
    """Start a run."""
    command = [*COMMAND, "--set", MATRIX, "--limit", str(limit), "--out", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def outcome(folder: Path) -> dict[str, tuple[str, float | None, str | None]]:
    """Read of each cell its status, score and the hash of its table."""
    return {r.cell_id: (r.status, r.score, r.samples_sha256) for r in Store(folder / "demo", print).records()}


def main() -> None:
    """Kill, resume, compare; exit code 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=80, help="questions of each benchmark")
    parser.add_argument("--longest", type=float, default=40.0, help="seconds until a kill, at most")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        whole, killed = Path(scratch) / "whole", Path(scratch) / "killed"
        start(whole, arguments.limit).wait()
        done, ended, lost = 0, 0, 0
        while done < arguments.kills:
            run = start(killed, arguments.limit)
            try:
                run.wait(draw.uniform(1.0, arguments.longest))
                ended += 1  # before its time: begin anew, so that every kill has something to hit
                lost += outcome(killed) != outcome(whole)
                subprocess.run(["rm", "-r", str(killed)], check=True)
            except subprocess.TimeoutExpired:
                run.kill()
                run.wait()
                done += 1
        start(killed, arguments.limit).wait()
        journals = list((killed / "demo" / "journal").glob("*.jsonl"))
        same = outcome(killed) == outcome(whole)
        print(f"{done} kills, {ended} runs that ended before theirs, of which {lost} differ from the undisturbed run")
        print(f"cells {len(outcome(whole))}; equal after the last: {same}; journals left: {len(journals)}")
    sys.exit(0 if same and not lost and not journals else 1)


if __name__ == "__main__":
    main()
