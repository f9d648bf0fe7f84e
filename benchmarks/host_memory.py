"""Show that a run's memory on the host does not grow with the number of its pictures.

A tiny model answers two questions about each of so many JPEG pictures, for three rows in one pass, as `vtpbench run` would;
each count in a process of its own, whose peak is read from the system. Pictures lie on disk, and two windows are decoded ahead.

    python benchmarks/host_memory.py
    python benchmarks/host_memory.py --pictures 100 1000 10000
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from vtpbench.harness.models.dummy import noise_picture
from vtpbench.harness.models.tiny import tiny_llava
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.run.answering import Answerer
from vtpbench.harness.run.bad_questions import BadQuestions
from vtpbench.harness.run.batch_size import WINDOW
from vtpbench.harness.run.questions import Question
from vtpbench.harness.run.sweep import SweepRow, WindowReader, sweep
from vtpbench.pruners.registry import build

SIZE = (640, 480)
DISTINCT = 16
"""Files on disk: each is shown under many names, as a picture's content matters to nothing here but its size."""


def answer(folder: Path, pictures: int, batch_size: int) -> int:
    """Answer two questions about each picture for three rows; gives the peak of this process, in bytes."""
    files = sorted(folder.iterdir())

    def ask(n: int) -> Question:
        return Question(str(n), f"What is it, {n}?", lambda: [Image.open(files[n // 2 % DISTINCT]).convert("RGB")], 2)

    model = tiny_llava()
    lanes = [Pipeline(model, build(name, {}), lambda n: n // 2) for name in ("random", "visionzip", "fastv")]
    rows = [SweepRow(Answerer(lane, batch_size), {}, lambda answers: None) for lane in lanes]
    sweep(rows, [ask(n) for n in range(2 * pictures)], WindowReader(model, BadQuestions(model)), lambda done, total: None)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Measure each count, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, nargs="+", default=[20, 200, 2000])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--in-folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_folder is not None:
        print(answer(arguments.in_folder, arguments.pictures[0], arguments.batch_size))
        return
    with tempfile.TemporaryDirectory() as scratch:
        for n in range(DISTINCT):
            noise_picture(*SIZE, seed=n).resize((80, 60)).resize(SIZE).save(Path(scratch) / f"{n:02}.jpg", quality=90)
        table = Table("pictures", "questions", "peak of the process, MiB", box=MARKDOWN)
        for count in arguments.pictures:
            command = [sys.executable, __file__, "--in-folder", scratch, "--pictures", str(count)]
            peak = int(subprocess.run([*command, "--batch-size", str(arguments.batch_size)], check=True, stdout=-1).stdout)
            table.add_row(str(count), str(2 * count), f"{peak / 2**20:.0f}")
    Console(width=100).print(table)
    window = WINDOW * arguments.batch_size
    print(f"pictures of {SIZE[0]} x {SIZE[1]}, windows of {window} questions, three rows in one pass")


if __name__ == "__main__":
    main()
