"""From a suite and the command line's choices to a plan, and from a plan to a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from vtpbench.harness.host.device import open_device
from vtpbench.harness.host.launcher import refuse_launcher
from vtpbench.harness.host.stopping import StopRequest
from vtpbench.harness.records.cell import Cell
from vtpbench.harness.records.environment import environment, versions
from vtpbench.harness.records.record import Dtype, ModelInfo
from vtpbench.harness.records.store import Store
from vtpbench.harness.run.batch_size import fitting_batch_size
from vtpbench.harness.run.forecast import Forecast, foresee
from vtpbench.harness.run.plan import narrow, plan
from vtpbench.harness.suite.benchmarks import Benchmark, fingerprint
from vtpbench.harness.suite.specs import ModelSpec
from vtpbench.harness.suite.suite import Suite, load
from vtpbench.pruners.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from vtpbench.harness.models.load import Described
    from vtpbench.harness.run.loop import RunContext
    from vtpbench.harness.run.progress import Progress
    from vtpbench.harness.run.scoring_process import ScoringProcesses
    from vtpbench.harness.run.shard import Shard
    from vtpbench.harness.run.shard_run import ShardSummary
    from vtpbench.harness.run.summary import Summary
    from vtpbench.harness.run.sweeper import CellEngine
    from vtpbench.pruners.base import Pruner


@dataclass(frozen=True)
class RunOptions:
    """What the command line says beside the suite."""

    out: Path
    only: Sequence[str] = ()
    settings: Sequence[str] = ()
    """`key=value`, replacing what the suite says."""
    limit: int | None = None
    batch_size: int | str | None = None
    dtype: str | None = None


def describe_checkpoint(spec: ModelSpec) -> Described:
    """Say what a model is that is here, or can be fetched; raises `UserError` for any other, and for random weights."""
    from vtpbench.harness.models.dummy import describe_dummy, refuse_dummy
    from vtpbench.harness.models.load import describe_model

    if spec.dummy is not None:
        refuse_dummy(describe_dummy(spec.dummy).info)
    assert spec.attention is not None  # filled in by `load`
    described = describe_model(
        spec.label,
        spec.location,
        revision=spec.revision,
        dtype=spec.dtype,
        attention=spec.attention,
        preprocessing=spec.preprocessing,
        prompt=spec.prompt,
        text_tower=spec.text_tower,
    )
    # As the suite has it: where a folder lies on this machine changes no number, and must not change a cell's identity.
    return dataclasses.replace(described, info=described.info.model_copy(update={"id": spec.path}))


@dataclass(frozen=True)
class Inspection:
    """How the models and data of a suite are looked at.

    Attributes
    ----------
    describe : says what a model is
    dataset : names what a benchmark asks, by the content of its data
    foreseen : the cell that a forecast is made for, in place of one
    gpu_bytes : memory of the GPU that batches must fit, where the suite leaves their size open; None = a processor answers

    """

    describe: Callable[[ModelSpec], Described] = describe_checkpoint
    dataset: Callable[[Benchmark], str] = fingerprint
    foreseen: Callable[[Cell], Cell] = lambda cell: cell
    gpu_bytes: Callable[[], float | None] = lambda: None


@dataclass(frozen=True)
class Job:
    """A suite with its models (by label), its cells, what is known of them beforehand (by id), and the folder of its results."""

    suite: Suite
    models: Mapping[str, Described]
    cells: tuple[Cell, ...]
    forecasts: Mapping[str, Forecast]
    store: Store


def make_job(suite_name: str, choices: RunOptions, warn: Callable[[str], None], look: Inspection | None = None) -> Job:
    """Load and plan a suite, of which everything must be here, or as `look` says.

    Raises `UserError` for every mistake that can be known before a model is loaded.
    """
    suite = load_suite(suite_name, choices)
    if not suite.benchmarks:
        raise UserError(f"suite {suite_name} names no benchmarks: it is for `vtpbench profile {suite_name}`")
    look, models = look or Inspection(), dict[str, "Described"]()

    def describe(spec: ModelSpec) -> ModelInfo:
        if spec.label not in models:
            models[spec.label] = look.describe(spec)
        return models[spec.label].info

    def weights_of(pruner: Pruner, model: ModelInfo) -> str:
        return pruner.fingerprint(models[model.label].shape)

    if suite.batch_size is None and (memory := look.gpu_bytes()) is not None:
        for spec in suite.models:
            describe(spec)
        suite = suite.model_copy(update={"batch_size": fitting_batch_size(models.values(), memory, graphs=suite.graphs)})
    cells = narrow(plan(suite, describe, versions(), weights_of, look.dataset), choices.only)
    known: dict[tuple[object, ...], Forecast] = {}
    forecasts = {}
    for cell in cells:
        row = cell.model.label, cell.pruner.label, cell.budget, cell.seed  # the benchmark does not matter
        if row not in known:
            known[row] = foresee(look.foreseen(cell), models[cell.model.label].shape)
        forecasts[cell.id] = known[row]
    return Job(suite, models, cells, forecasts, Store(choices.out / suite.name, warn))


def load_suite(name: str, choices: RunOptions) -> Suite:
    """Load a suite with what the command line replaces of it."""
    named = {"limit": choices.limit, "batch_size": choices.batch_size}
    suite = load(name, choices.settings, {key: value for key, value in named.items() if value is not None})
    return suite if choices.dtype is None else suite.with_dtype(_dtype(choices.dtype))


def execute(job: Job, device_name: str | None, progress: Progress, stop: StopRequest | None = None) -> Summary:
    """Run the missing cells of a job on a device as torch names it; by default the first GPU, else the CPU.

    Raises `TimeIsUp` behind the batch in which `stop` says so.
    """
    from vtpbench.harness.run.loop import run

    return run(job.cells, context_of(job, job.store, device_name, progress, stop))


def execute_shard(
    job: Job, shard: Shard, device_name: str | None, progress: Progress, stop: StopRequest | None = None
) -> ShardSummary:
    """Answer a shard's part of the missing cells' questions, in a folder of its own; else as `execute`."""
    from vtpbench.harness.run.shard_run import run_shard  # imports torch

    store = job.store.below(shard.folder(job.store.folder))
    return run_shard(job.store.missing(job.cells), context_of(job, store, device_name, progress, stop), shard)


def context_of(job: Job, store: Store, device_name: str | None, progress: Progress, stop: StopRequest | None) -> RunContext:
    """Give what a run needs beside its cells."""
    from vtpbench.harness.run.loop import RunContext

    refuse_launcher()
    device = open_device(device_name)

    def open_engine(model: ModelInfo) -> CellEngine:
        from vtpbench.harness.run import engine  # imports lmms-eval: many seconds, which a complete folder need not pay

        return engine.open_engine(job.models[model.label], device, job.suite.questions_together)

    benchmarks, pictures = job.suite.benchmarks, job.suite.pictures
    where = environment(str(device))
    # On a processor a process beside would only take from the answers what it gives to the scores.
    scorers = None if device.type == "cpu" else scorers_of(job, 1)
    return RunContext(job.suite.name, store, open_engine, benchmarks, where, progress, pictures, stop or StopRequest(), scorers)


def scorers_of(job: Job, count: int) -> ScoringProcesses:
    """Give processes that score a job's cells."""
    from vtpbench.harness.run.scoring_process import ScoringProcesses

    shapes = {label: described.shape for label, described in job.models.items()}
    return ScoringProcesses(count, job.store.folder, job.suite.benchmarks, shapes)


def _dtype(name: str) -> Dtype:
    if name not in get_args(Dtype):
        raise UserError(f"--dtype {name}: {did_you_mean(name, get_args(Dtype))}")
    return cast(Dtype, name)
