"""Answers and kept tokens that the numerics revision stands for, of the embedded model in float32.

    python tests/harness/records/golden_numbers.py

measures them anew and writes `golden_numbers.json`. Only questions far from ties are taken: those of which nothing changes where
all weights are moved by a hundred times what processors differ in.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from vtpbench.harness.host.libraries import output_to
from vtpbench.harness.records.environment import NUMERICS
from vtpbench.harness.records.journal import FileJournal
from vtpbench.harness.run.engine import Engine, open_engine
from vtpbench.harness.run.job import Job, RunOptions, make_job
from vtpbench.harness.run.pictures import PictureFolder

FILE = Path(__file__).with_suffix(".json")
QUESTIONS, SHIFTS, SHIFT = 6, 3, 1e-5
PRUNERS = "random, {fastv: {layer: 1}}, sparsevlm, visionzip, pyramiddrop, hiprune, divprune, tome, oc-vtp"
MATRIX = f"matrix={{pruners: [{PRUNERS}], budgets: [48], benchmarks: [demo-exist, demo-open]}}"
Numbers = dict[str, list[Any]]


def measure(shifts: int = 0) -> list[Numbers]:
    """Answer and cuts of each cell's questions, as they are and then with the weights moved in as many ways."""
    with TemporaryDirectory() as scratch, output_to(Path(scratch, "said.log")):
        job = make_job("demo", RunOptions(Path(scratch), settings=[MATRIX, "batch_size=4"], limit=QUESTIONS), print)
        engine = open_engine(job.models["demo"], torch.device("cpu"), 4)
        found = [_numbers(engine, job, Path(scratch, "as-they-are"))]
        for seed in range(shifts):
            _shift(engine.family.model, seed)
            found.append(_numbers(engine, job, Path(scratch, str(seed))))
    return found


def _numbers(engine: Engine, job: Job, scratch: Path) -> Numbers:
    numbers: Numbers = {}
    for cell in job.cells:
        journal = FileJournal(scratch / f"{cell.id}.jsonl")
        benchmark = job.suite.benchmarks[cell.benchmark.label]
        outcome = engine.run(cell, benchmark, journal, lambda done, of: None, PictureFolder(scratch, QUESTIONS))
        row = f"{cell.pruner.label} / {cell.benchmark.label}"
        numbers |= {f"{row} / {s.sample}": [s.answer, json.loads(s.kept)[0]["cuts"]] for s in outcome.samples}
    return numbers


@torch.no_grad()
def _shift(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.mul_(1 + SHIFT * torch.randn(weight.shape, generator=generator))


def main() -> None:
    """Write what holds in all measurements."""
    plain, *moved = measure(shifts=SHIFTS)
    steady = {name: number for name, number in plain.items() if all(other[name] == number for other in moved)}
    lines = [f"  {json.dumps(name)}: {json.dumps(number, separators=(',', ':'))}" for name, number in steady.items()]
    text = ",\n".join(lines)
    FILE.write_text(f'{{\n "revision": {NUMERICS},\n "numbers": {{\n{text}\n }}\n}}\n')
    print(f"{len(steady)} of {len(plain)} answers are far from ties: {FILE}")


if __name__ == "__main__":
    main()
