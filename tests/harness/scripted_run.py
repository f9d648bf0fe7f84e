"""A run with a scripted engine: no model, the real loop, store and journal. Tests load it, or start it as a process.

    python scripted_run.py FOLDER CELLS [PAUSE_S [PARTIES [LARGEST_FILE]]]

Every question that is asked leaves a line in FOLDER/asked.log, so that tests can count how often it was.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from vtpbench.harness.records.cell import Answer, Cell, Journal, Sample
from vtpbench.harness.records.outcome import Outcome, Swept
from vtpbench.harness.records.record import BatchInfo, BenchmarkInfo, BudgetInfo, Environment, ModelInfo, Observed, PrunerInfo
from vtpbench.harness.records.store import Store
from vtpbench.harness.run.loop import RunContext, run
from vtpbench.harness.run.pictures import PictureFolder
from vtpbench.harness.run.progress import Progress
from vtpbench.harness.suite.benchmarks import Benchmark
from vtpbench.pruners.errors import Infeasible, Unsupported, UserError

QUESTIONS = 40
BATCH = 4
ENVIRONMENT = Environment(versions={"torch": "2"}, device="abacus", platform="test", git_commit=None)


def make_model(label: str = "toy") -> ModelInfo:
    facts = {"id": label, "family": "toy", "weights": label, "dtype": "float32", "attention": "sdpa"}
    return ModelInfo(label=label, preprocessing="pad", prompt="0", vision_tokens=16, **facts)


def make_cell(pruner: str = "random", tokens: int = 4, model: str = "toy", seed: int = 0, label: str = "exist") -> Cell:
    return Cell(
        model=make_model(model),
        pruner=PrunerInfo(name=pruner, label=pruner, options={}, code="0", distribution="vtpbench"),
        budget=BudgetInfo() if pruner == "vanilla" else BudgetInfo(tokens=tokens),
        benchmark=BenchmarkInfo(
            label=label, task=label, metric="accuracy", scale=100.0, split="test", limit=None, dataset="0", generation={}
        ),
        seed=seed,
        batch_size=BATCH,
        versions={"torch": "2"},
    )


def make_benchmark(folder: Path, label: str = "exist") -> Benchmark:
    """Benchmark whose one data file exists, which is all that the loop asks of it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.parquet").touch()
    (folder / f"{label}.yaml").write_text(
        f"task: {label}\ntest_split: test\ndataset_path: parquet\ndataset_kwargs: {{data_files: {{test: data.parquet}}}}\n"
    )
    return Benchmark.model_validate({"label": label, "task": label, "folder": str(folder), "metric": "accuracy"})


@dataclass
class ScriptedEngine:
    """Says yes to everything, but for pruners named after what goes wrong with them."""

    log: Path
    pause_s: float = 0.0

    def sweep(self, *everything: object) -> dict[str, Swept]:
        """Leave every cell to `run`."""
        del everything
        return {}

    def run(
        self,
        cell: Cell,
        benchmark: Benchmark,
        journal: Journal,
        progress: Callable[[int, int], None],
        picture_folder: PictureFolder,
        swept: Swept | None = None,
    ) -> Outcome:
        answers = journal.known()
        progress(len(answers), QUESTIONS)
        left = [str(i) for i in range(QUESTIONS) if str(i) not in answers]
        for start in range(0, len(left), BATCH):
            batch = [self.ask(cell, sample) for sample in left[start : start + BATCH]]
            if start:
                self.go_wrong(cell.pruner.name)
            time.sleep(self.pause_s)
            journal.add(batch)
            answers.update({answer.sample: answer for answer in batch})
            progress(len(answers), QUESTIONS)
        samples = [Sample(key, "img", "", "?", a.text, "yes", 1.0, 4.0, "{}") for key, a in sorted(answers.items())]
        seen = Observed(tokens=4.0, original=16.0, per_layer=[4.0], images=len(samples))
        return Outcome("ok", None, 100.0, 0.0, {}, len(samples), seen, 0.0, BatchInfo(requested=BATCH, smallest=BATCH), samples)

    def ask(self, cell: Cell, sample: str) -> Answer:
        with self.log.open("a") as log:
            log.write(f"{cell.id} {sample}\n")
        return Answer(sample, "yes", ("img",), (16,), ((4, 4),))

    def go_wrong(self, pruner: str) -> None:
        if pruner == "defect":
            raise RuntimeError("index out of range\nwith a second line")
        if pruner == "infeasible":
            raise Infeasible("cannot go below 10 tokens")
        if pruner == "unsupported":
            raise Unsupported("needs a CLS token")
        if pruner == "mistake":
            raise UserError("option 'x' must be positive")
        if pruner in ("lost", "full"):
            import torch  # slow; the processes that tests start need none of it

            reason = {"lost": "device-side assert triggered", "full": "out of memory"}[pruner]
            raise torch.AcceleratorError(f"CUDA error: {reason}\nCompile with ...")
        if pruner == "interrupted":
            raise KeyboardInterrupt


def make_setting(
    folder: Path, pause_s: float = 0.0, console: Console | None = None, progress: Progress | None = None
) -> RunContext:
    folder.mkdir(parents=True, exist_ok=True)
    return RunContext(
        suite="toy",
        store=Store(folder / "toy", lambda line: print("warning:", line, file=sys.stderr)),
        open_engine=lambda model: ScriptedEngine(folder / "asked.log", pause_s),
        benchmarks={"exist": make_benchmark(folder / "tasks")},
        environment=ENVIRONMENT,
        progress=progress or Progress(console or Console(file=sys.stderr)),
    )


def meet(folder: Path, parties: int) -> None:
    """Wait until as many processes are here, so that they really run at once."""
    (folder / f"ready.{os.getpid()}").touch()
    while len(list(folder.glob("ready.*"))) < parties:
        time.sleep(0.01)


def main(folder: Path, cells: int, pause_s: float = 0.0, parties: int = 1, largest_file: int | None = None) -> int:
    setting = make_setting(folder, pause_s)
    meet(folder, parties)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    try:
        summary = run([make_cell(seed=seed) for seed in range(cells)], setting)
    except UserError as e:
        print(e)
        return 2
    print("\n".join(summary.lines()))
    return summary.exit_code


if __name__ == "__main__":
    here, count, *rest = sys.argv[1:]
    sys.exit(main(Path(here), int(count), float(rest[0]) if rest else 0.0, *map(int, rest[1:])))
