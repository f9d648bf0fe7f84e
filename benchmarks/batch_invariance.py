"""Count the answers and kept tokens of the demo that differ between batch sizes, in float32 on this machine.

    python benchmarks/batch_invariance.py --batch 1 4 16 --limit 24

Every pruner of the demo at one budget, one seed. A processor that rounds the sums of one image otherwise than those of four could
flip tokens whose scores nearly tie; the printed counts say whether it does.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console

from vtpbench.harness.run.job import RunOptions, execute, make_job
from vtpbench.harness.run.progress import Progress

Outcomes = Mapping[tuple[str, str, str], tuple[str, Any]]
"""Answer and kept tokens by pruner, benchmark and question."""


def outcomes(batch: int, limit: int, folder: Path) -> Outcomes:
    """Run the demo and read its per-sample tables."""
    only = ["budget=32", "seed=0"]
    job = make_job("demo", RunOptions(folder, only, [f"pictures={limit}"], limit, batch), print)
    execute(job, "cpu", Progress(Console(quiet=True)))
    found: dict[tuple[str, str, str], tuple[str, Any]] = {}
    for record in job.store.records():
        table = job.store.samples(record.cell_id)
        if table is not None:
            for row in table.to_dict("records"):
                key = record.pruner.label, record.benchmark.label, row["sample"]
                found[key] = row["answer"], [image["cuts"] for image in json.loads(row["kept"] or "[]")]
    return found


def main() -> None:
    """Run all batch sizes and compare with the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--limit", type=int, default=24, help="questions of each benchmark")
    arguments = parser.parse_args()
    with TemporaryDirectory() as scratch:
        first, *others = (outcomes(batch, arguments.limit, Path(scratch, str(batch))) for batch in arguments.batch)
    print(f"{len(first)} questions, {torch.get_num_threads()} threads")
    for batch, other in zip(arguments.batch[1:], others, strict=True):
        answers = sum(first[key][0] != other[key][0] for key in first)
        kept = sum(first[key][1] != other[key][1] for key in first)
        print(f"batch {batch} beside {arguments.batch[0]}: {answers} answers and {kept} selections differ")


if __name__ == "__main__":
    main()
