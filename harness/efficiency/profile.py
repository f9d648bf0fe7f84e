"""Measure all pruners and budgets on one loaded model, turn by turn."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Literal, get_args

import torch
from PIL.Image import Image

from vtpbench.harness.efficiency.batch_size import LARGEST, largest, largest_for_all
from vtpbench.harness.efficiency.flops import Convention, Workload, count
from vtpbench.harness.efficiency.pruner_flops import measure
from vtpbench.harness.efficiency.record import STAGES, EfficiencyRecord, FlopsInfo, Load, Machine, Measured
from vtpbench.harness.efficiency.shape import Dimensions
from vtpbench.harness.efficiency.stages import Prompts, Seen, Subject, observe, timed
from vtpbench.harness.environment import environment
from vtpbench.harness.models.dummy import noise_picture
from vtpbench.harness.models.family import Family
from vtpbench.harness.record import BudgetInfo, ModelInfo, PrunerInfo
from vtpbench.pruners.base import Pruner
from vtpbench.pruners.errors import Infeasible, Unsupported, UserError

Progress = Callable[[str, int, int], None]
"""Called with a phase, what is done of it, and its whole."""


@dataclass(frozen=True)
class Contestant:
    """One row of the table; vanilla has an empty budget."""

    info: PrunerInfo
    pruner: Pruner
    budget: BudgetInfo


@dataclass(frozen=True)
class Protocol:
    """How to measure; `batch` None = the largest that fits for every row."""

    question: str
    batch: int | None = 1
    picture: tuple[int, int] = (640, 480)
    new_tokens: int = 16
    warmup: int = 2
    repeats: int = 10

    def prompts(self, batch: int) -> Prompts:
        """Draw the pictures, all different."""
        pictures: list[Image] = [noise_picture(*self.picture, seed=n) for n in range(batch)]
        return Prompts(pictures, self.question, self.new_tokens)


@dataclass
class Row:
    """A contestant on its way: what it showed, and its times by stage, one for each repeat."""

    contestant: Contestant
    subject: Subject
    seen: Seen
    flops: dict[str, FlopsInfo]
    times: dict[str, list[float]]


def profile(
    family: Family, model: ModelInfo, contestants: Sequence[Contestant], protocol: Protocol, suite: str, progress: Progress
) -> EfficiencyRecord:
    """Measure; the first contestant is vanilla.

    Every repeat runs all rows once, in their order, so that a machine that slows down slows all of them. What a pruner
    cannot do is a row that says so.

    Raises
    ------
    UserError : the batch does not fit, or the largest one was asked for on a device that cannot tell

    """
    subjects = [Subject(family, contestant.pruner, contestant.budget) for contestant in contestants]
    single = protocol.prompts(1)
    rows: list[Row | Measured] = []
    for n, (contestant, subject) in enumerate(zip(contestants, subjects, strict=True)):
        progress("count", n, len(contestants))
        rows.append(_counted(contestant, subject, single))
    able = [row for row in rows if isinstance(row, Row)]
    batch = _largest_batch(able, protocol) if protocol.batch is None else protocol.batch
    prompts = protocol.prompts(batch)
    for n, row in enumerate(able):
        progress("warm up", n, len(able))
        row.seen = _warm(row, prompts, protocol.warmup)
    for n in range(protocol.repeats):
        progress("measure", n, protocol.repeats)
        for row in able:
            _time(row, prompts)
    progress("measure", protocol.repeats, protocol.repeats)
    return EfficiencyRecord(
        suite=suite,
        model=model,
        load=Load(
            batch=batch,
            picture=protocol.picture,
            new_tokens=protocol.new_tokens,
            warmup=protocol.warmup,
            repeats=protocol.repeats,
        ),
        machine=machine(family.device),
        rows=[_finished(row) if isinstance(row, Row) else row for row in rows],
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def machine(device: torch.device) -> Machine:
    """Describe what is measured on."""
    return Machine(environment=environment(str(device)), driver=_driver(device), threads=torch.get_num_threads())


def _counted(contestant: Contestant, subject: Subject, prompts: Prompts) -> Row | Measured:
    """Look at one prompt and count its operations, or say why that cannot be."""
    try:
        seen = observe(subject, prompts)
    except (Infeasible, Unsupported) as e:
        status: Literal["infeasible", "unsupported"] = "infeasible" if isinstance(e, Infeasible) else "unsupported"
        return Measured(pruner=contestant.info, budget=contestant.budget, status=status, reason=str(e))
    family, (image, *_) = subject.family, prompts.images
    cost = measure(family, subject.pruner, subject.tokens(int(seen.observed.original)), image, prompts.question)
    dimensions = Dimensions.from_config(family.model.config)
    work = Workload(
        grid=seen.grid,
        per_layer=tuple(seen.observed.per_layer),
        text=seen.text,
        new=prompts.new_tokens,
        pruner=float(cost.total),
        tower=seen.tower,
    )
    flops = {convention: _flops(dimensions, work, convention) for convention in get_args(Convention)}
    return Row(contestant, subject, seen, flops, {stage: [] for stage in STAGES})


def _flops(dimensions: Dimensions, work: Workload, convention: Convention) -> FlopsInfo:
    found = count(dimensions, work, convention)
    return FlopsInfo(
        vision=found.vision,
        pruner=found.pruner,
        projector=found.projector,
        prefill=list(found.prefill),
        head=found.head,
        decode=sum(found.decode),
    )


def _warm(row: Row, prompts: Prompts, warmup: int) -> Seen:
    """Run untimed; the last run is looked at."""
    try:
        for _ in range(warmup):
            timed(row.subject, prompts)
        return observe(row.subject, prompts)
    except torch.OutOfMemoryError as e:
        label = row.contestant.info.label
        raise UserError(f"{label}: a batch of {len(prompts.images)} does not fit; use --batch max, or a smaller one") from e


def _time(row: Row, prompts: Prompts) -> None:
    sums = dict.fromkeys(STAGES, 0.0)
    for lap in timed(row.subject, prompts):
        sums[lap.stage] += lap.ms
    for stage, ms in sums.items():
        row.times[stage].append(ms)


def _finished(row: Row) -> Measured:
    return Measured(
        pruner=row.contestant.info,
        budget=row.contestant.budget,
        observed=row.seen.observed,
        text_tokens=row.seen.text,
        times_ms=row.times,
        masked_layers=row.seen.masked,
        kv_bytes=row.seen.kv_bytes,
        peak_bytes=row.seen.peak_bytes,
        flops=row.flops,
    )


def require_searchable(device: torch.device) -> None:
    """Raise `UserError` where the largest batch cannot be found."""
    if device.type != "cuda":
        raise UserError(f"--batch max searches the memory of a GPU, the device is {device}; give a number")


def _largest_batch(rows: Sequence[Row], protocol: Protocol) -> int:
    """Search with vanilla, which holds most tokens, then ask the others."""
    require_searchable(rows[0].subject.family.device)
    fitting = [partial(_fits, row.subject, protocol) for row in rows]
    found = largest_for_all(fitting[1:], largest(fitting[0], LARGEST))
    if not found:
        raise UserError("not even one prompt fits the GPU; use a smaller model or dtype")
    return found


def _fits(subject: Subject, protocol: Protocol, batch: int) -> bool:
    try:
        timed(subject, protocol.prompts(batch))
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()
    return True


def _driver(device: torch.device) -> str | None:
    """Version of the GPU's driver, as its own tool says; None without a GPU or the tool."""
    if device.type != "cuda":
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", f"--id={device.index or 0}"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
