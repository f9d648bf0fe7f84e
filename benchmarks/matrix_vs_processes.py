"""Time the demo matrix in one vtpbench process against one lmms-eval process per cell, the field's usual way.

Both ways answer the same questions with the same code (`lmms-eval --model vtpbench`), so that the ratio is the cost of
starting a process, importing and loading a model for every cell. Scores of both are compared. With `--sample` only so many
cells, drawn at random, are run as processes of their own, and the rest is taken to cost the same on average.

    python benchmarks/matrix_vs_processes.py --sample 8
    python benchmarks/matrix_vs_processes.py --only pruner=random --limit 120
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vtpbench.harness.records.cell import Cell
from vtpbench.harness.records.record import agree
from vtpbench.harness.records.store import Store
from vtpbench.harness.run.job import Job, RunOptions, make_job
from vtpbench.harness.suite.specs import is_seeded

COMMAND = [sys.executable, "-m"]


def one_process(arguments: argparse.Namespace, folder: Path) -> float:
    """Run the suite with vtpbench; seconds."""
    only = [part for key in arguments.only for part in ("--only", key)]
    command = [str(Path(sys.executable).with_name("vtpbench")), "run", arguments.suite, *only, "--out", str(folder)]
    start = time.perf_counter()
    command += [] if arguments.limit is None else ["--limit", str(arguments.limit)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def process_per_cell(job: Job, cell: Cell, folder: Path) -> tuple[float, float]:
    """Run one cell with lmms-eval's own command; seconds and score."""
    benchmark = job.suite.benchmarks[cell.benchmark.label]
    specs = (spec for matrix in job.suite.matrix for spec in matrix.pruners if spec.label == cell.pruner.label)
    said = next((spec.options for spec in specs), {})  # those left out are the same, and some have names of the model's
    parts = {"pretrained": str(job.models[cell.model.label].folder), "pruner": cell.pruner.name, **said}
    if not cell.is_vanilla:
        parts["budget"] = cell.budget.label
    if is_seeded(cell.pruner.name):
        parts["seed"] = str(cell.seed)
    command = [*COMMAND, "lmms_eval", "--model", "vtpbench", "--tasks", cell.benchmark.task, "--output_path", str(folder)]
    command += ["--include_path", str(benchmark.file.parent), "--batch_size", str(cell.batch_size)]
    command += ["--limit", str(cell.benchmark.limit), "--model_args", ",".join(f"{k}={v}" for k, v in parts.items())]
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=benchmark.file.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    results = json.loads(next(folder.rglob("*results.json")).read_text())["results"][cell.benchmark.task]
    return seconds, cell.benchmark.scale * sum(results[f"{term}"] for term in _keys(results, cell.benchmark.terms))


def _keys(results: dict[str, float], terms: tuple[str, ...]) -> list[str]:
    return [key for term in terms for key in results if key.split(",")[0] == term]


def main() -> None:
    """Run both and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="demo")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--limit", type=int, help="questions of each benchmark; the suite's own number unless given")
    parser.add_argument("--sample", type=int, help="cells to run as processes of their own; all unless given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        together = one_process(arguments, Path(scratch) / "together")
        print(f"one vtpbench process: {together:.1f} s", flush=True)  # the rest takes many minutes
        choices = RunOptions(Path(scratch) / "together", arguments.only, limit=arguments.limit)
        job = make_job(arguments.suite, choices, print)
        scores = {r.cell_id: r.score for r in Store(choices.out / job.suite.name, print).records() if r.status == "ok"}
        measured = [cell for cell in job.cells if cell.id in scores]
        taken = measured if arguments.sample is None else random.Random(0).sample(measured, arguments.sample)
        apart, equal = 0.0, 0
        for n, cell in enumerate(taken):
            seconds, score = process_per_cell(job, cell, Path(scratch) / f"cell{n}")
            apart += seconds
            equal += agree(score, scores[cell.id] or 0.0)
            print(f"{cell}: {seconds:.1f} s", flush=True)
    cells, whole = len(measured), apart * len(measured) / len(taken)
    print(f"one vtpbench process:           {together:7.1f} s, {len(job.models)} model load, {cells} cells")
    print(f"one lmms-eval process per cell: {apart:7.1f} s, {len(taken)} of them; {whole:.0f} s for {cells}")
    print(f"ratio {whole / together:.1f}; equal scores in {equal} of {len(taken)} cells")


if __name__ == "__main__":
    main()
