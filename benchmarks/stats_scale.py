"""Time and memory of a paired cluster bootstrap at the size of VQAv2's validation set.

Makes the per-sample tables of vanilla and several pruners (214,354 questions on 40,504 images), one at a time as a report
reads them, and takes everything from there to the intervals of the relative accuracies.

    python benchmarks/stats_scale.py
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import pandas as pd

from vtpbench.harness.records.record import BenchmarkInfo
from vtpbench.report.stats.bootstrap import replicate
from vtpbench.report.stats.draws import draws, interval, relative
from vtpbench.report.stats.sums import Sums, summarise

SAMPLES, IMAGES = 214_354, 40_504
VQAV2 = BenchmarkInfo(label="vqav2", task="vqav2_val", metric="exact_match", scale=100, split="validation", limit=None,
                      dataset="simulated", generation={})  # fmt: skip


def table(row: int) -> pd.DataFrame:
    """Per-sample table of one row, with VQA's soft scores; the harder half of the images loses more."""
    generator = np.random.default_rng(row)
    image = np.arange(SAMPLES) % IMAGES
    right = generator.random(SAMPLES) < np.where(image % 2, 0.9, 0.7 - 0.02 * row)
    score = np.where(right, generator.choice([0.3, 0.6, 0.9, 1.0], SAMPLES), 0.0)
    names = np.array([f"{i:016x}" for i in range(IMAGES)])
    return pd.DataFrame({"sample": np.arange(SAMPLES).astype(str), "image": names[image], "score": score, "detail": "{}"})


def sums(row: int) -> Sums:
    """Read one row as a report does."""
    samples = table(row)
    return summarise(VQAV2, 100 * float(samples["score"].mean()), samples)


def main() -> None:
    """Resample and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=9, help="vanilla and pruners")
    parser.add_argument("--replicates", type=int, default=10_000)
    arguments = parser.parse_args()
    wall, cpu = time.perf_counter(), time.process_time()
    cells = [sums(row) for row in range(arguments.rows)]
    print(f"tables made and read: {time.perf_counter() - wall:.1f} s, {time.process_time() - cpu:.1f} s of CPU")
    wall, cpu = time.perf_counter(), time.process_time()
    columns = replicate([f"row {i}" for i in range(len(cells))], cells, arguments.replicates).T
    scores = [draws(column, cell) for column, cell in zip(columns, cells, strict=True)]
    for cell, score in zip(cells[1:], scores[1:], strict=True):
        low, high = interval(relative(score, scores[0]))
        print(f"relative accuracy {100 * cell.score / cells[0].score:.2f} %, interval {low:.2f} to {high:.2f}")
    print(f"{arguments.replicates} replicates of {arguments.rows} rows: {time.perf_counter() - wall:.1f} s, ", end="")
    print(f"{time.process_time() - cpu:.1f} s of CPU; peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
