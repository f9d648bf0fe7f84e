"""How long commands take that measure nothing, and which heavy libraries they import.

    python benchmarks/startup.py                             # a minute
    python benchmarks/startup.py --results FOLDER            # with `report FOLDER`, which holds what `vtpbench run demo` measured

Each command is started several times and the least time counts: on a machine that others use as well the rest says little. Beside
the clock's stands the time of processors, of the command and what it starts.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = (
    "--help",
    "list pruners",
    "list models",
    "list benchmarks",
    "list suites",
    "data demo",
    "data llava15",
    "plan demo",
    "plan llava15 --gpu h100",
    "plan efficiency",
    "report paper",
    "merge --help",
)
HEAVY = ("torch", "transformers", "lmms_eval", "datasets")
CODE = """
import sys
from vtpbench.harness.cli.main import app
code = 0
try:
    app(sys.argv[1:])
except SystemExit as e:
    code = e.code
print(*(m for m in {heavy!r} if m in sys.modules), file=sys.stderr)
raise SystemExit(code)
"""


def main() -> None:
    """Start the commands in turn, and print a table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--results", type=Path, help="results of the demo")
    chosen = options.parse_args()
    report = [f"report {chosen.results.absolute()}"] if chosen.results else []
    print("| command | seconds | processor, seconds | imports |")
    print("|---|--:|--:|---|")
    for command in [*COMMANDS, *report]:
        runs = [measured(command) for _ in range(chosen.repeats)]
        named = "report FOLDER" if command in report else command
        clock, busy = (min(run[part] for run in runs) for part in (0, 1))
        print(f"| `{named}` | {clock:.1f} | {busy:.1f} | {runs[0][2]} |", flush=True)


def measured(command: str) -> tuple[float, float, str]:
    """Start a command without network; give seconds, seconds of processors, and the heavy libraries that it imported."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        alone = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path[1:]))}
        called = [sys.executable, "-c", CODE.format(heavy=HEAVY), *command.split()]
        done = subprocess.run(called, capture_output=True, text=True, cwd=folder, env=alone)
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr}")
    busy = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return clock, busy, ", ".join(done.stderr.splitlines()[-1].split()) if done.stderr.strip() else ""


if __name__ == "__main__":
    main()
