"""Measure all pruners and budgets on one loaded model, turn by turn."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial, reduce

import torch
from PIL.Image import Image

from vtpbench.harness.efficiency.batch_size import LARGEST, largest, largest_for_all
from vtpbench.harness.efficiency.ceilings import measure_ceilings
from vtpbench.harness.efficiency.counting import flops_of
from vtpbench.harness.efficiency.energy import EnergyMeter, open_meter
from vtpbench.harness.efficiency.flops import Workload
from vtpbench.harness.efficiency.pruner_flops import measure
from vtpbench.harness.efficiency.rows import Progress, PrunerRow, RowInProgress, TooLarge, turn
from vtpbench.harness.efficiency.stages import Observation, Prompts, PrunerAtBudget, observe, observe_replayed, run, timed
from vtpbench.harness.models.dummy import noise_picture
from vtpbench.harness.models.family import Family
from vtpbench.harness.pruning.captured_passes import STEPS
from vtpbench.harness.records.efficiency import NOTHING, STAGES, EfficiencyRecord, Load, Machine, Measured
from vtpbench.harness.records.environment import environment
from vtpbench.harness.records.record import ModelInfo
from vtpbench.pruners.errors import UserError

THROUGHPUT = (1, 4, 16, 64)
"""Batches of a throughput card; where a device can tell, the largest that fits is added."""


@dataclass(frozen=True)
class ProfileProtocol:
    """How to measure.

    Attributes
    ----------
    question : asked about every picture
    batches : prompts at once, one measurement after the other
    largest : whether to find the largest batch that fits for every row, too, and to leave out those above it
    picture : width and height, pixels
    new_tokens, warmup, repeats : of each row
    graphs : whether all rows take turns twice, as they are and as CUDA graphs

    """

    question: str
    batches: tuple[int, ...] = (1,)
    largest: bool = False
    picture: tuple[int, int] = (640, 480)
    new_tokens: int = 16
    warmup: int = 2
    repeats: int = 10
    graphs: bool = False

    def prompts(self, batch: int) -> Prompts:
        """Draw the pictures, all different."""
        pictures: list[Image] = [noise_picture(*self.picture, seed=n) for n in range(batch)]
        return Prompts(pictures, self.question, self.new_tokens)

    def load(self, batch: int, repeats: int, *, graphs: bool = False) -> Load:
        """Say what every row has to do."""
        new, warmup = self.new_tokens, self.warmup
        return Load(batch=batch, picture=self.picture, new_tokens=new, warmup=warmup, repeats=repeats, graphs=graphs)


def profile(
    family: Family, model: ModelInfo, pruner_rows: Sequence[PrunerRow], protocol: ProfileProtocol, suite: str, progress: Progress
) -> Iterator[EfficiencyRecord]:
    """Measure, batch after batch; the first row is vanilla.

    Every repeat runs all rows once, so that a machine that slows down slows all of them, each time in another order (`turn`),
    so that no row always comes first or behind the same one. What a pruner cannot do, or that it broke, is a row that says so.
    With graphs each batch has two records, of the same turns.

    Raises
    ------
    UserError : a batch does not fit, or the largest one was asked for on a device that cannot tell

    """
    counted = _begin(family, pruner_rows, protocol, progress)
    ceilings, meter = measure_ceilings(family.device, family.model.dtype), open_meter(family.device)
    for batch in _batches(_able(counted), protocol):
        launched = [row.afresh() for row in counted]
        replayed = [row.as_graphs() for row in launched] if protocol.graphs else []
        family.forget_graphs()  # those of another batch
        _measure([*launched, *replayed], protocol, batch, meter, progress)
        for rows in filter(None, (launched, replayed)):
            yield EfficiencyRecord(
                suite=suite,
                model=model,
                load=protocol.load(batch, protocol.repeats, graphs=rows is replayed),
                machine=machine(family.device),
                rows=[row.dropped or _finished(row, protocol.new_tokens) for row in rows],
                ceilings=ceilings,
                created=now(),
            )


def _begin(
    family: Family, pruner_rows: Sequence[PrunerRow], protocol: ProfileProtocol, progress: Progress
) -> list[RowInProgress]:
    """Begin the rows: count what each pruner adds to one prompt."""
    rows = [RowInProgress(pruner_row, PrunerAtBudget(family, pruner_row.pruner, pruner_row.budget)) for pruner_row in pruner_rows]
    single = protocol.prompts(1)
    for n, row in enumerate(rows):
        progress("count", n, len(rows))
        row.attempt(_count, single)
    return rows


def _measure(
    rows: Sequence[RowInProgress], protocol: ProfileProtocol, batch: int, meter: EnergyMeter | None, progress: Progress
) -> None:
    prompts, able = protocol.prompts(batch), _able(rows)
    for n, row in enumerate(able):
        progress(f"batch {batch}: warm up", n, len(able))
        row.attempt(partial(_warm if row.launched is None else _warm_replayed, protocol.warmup), prompts)
    able = _able(rows)
    for n in range(protocol.repeats):
        progress(f"batch {batch}: measure", n, protocol.repeats)
        for row in turn(able, n):
            row.attempt(_time, prompts)
    if meter is not None:
        for n, row in enumerate(able := _able(rows)):
            progress(f"batch {batch}: energy", n, len(able))
            row.attempt(partial(_weigh, meter), prompts)
    progress(f"batch {batch}: measure", protocol.repeats, protocol.repeats)


def now() -> str:
    """Give the time for a record."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def machine(device: torch.device) -> Machine:
    """Describe what is measured on."""
    return Machine(environment=environment(str(device)), driver=_driver(device), threads=torch.get_num_threads())


def _able(rows: Sequence[RowInProgress]) -> list[RowInProgress]:
    return [row for row in rows if row.dropped is None]


def _count(row: RowInProgress, prompts: Prompts) -> None:
    """Count what the pruner adds to one prompt."""
    subject, image = row.subject, prompts.images[0]
    (group,) = subject.family.group([image])
    budget = subject.tokens(group.tokens)
    row.pruner_flops = float(measure(subject.family, subject.pruner, budget, image, prompts.question).total)


def _warm(warmup: int, row: RowInProgress, prompts: Prompts) -> None:
    """Run untimed, and once more; all runs but the first are watched, and the quickest of each stage is kept."""
    if warmup:
        _run(row, prompts)
    seen = observe(row.subject, prompts)
    for _ in range(warmup - 1):
        seen = seen.at_best(observe(row.subject, prompts))
    row.seen = seen


def _warm_replayed(warmup: int, row: RowInProgress, prompts: Prompts) -> None:
    """Run until all is captured that can be, then look as often as `_warm` does; says what is replayed, and what is not.

    A row that dropped out launched does so replayed, for the same reason.
    """
    assert row.launched is not None, "a row that is replayed"
    if row.launched.dropped is not None:
        row.dropped = row.launched.dropped
        return
    launched, passes, steps = row.launched.seen, row.subject.family.captured_passes, row.subject.family.captured_steps
    assert launched is not None, "looked at before"
    _settle(row, prompts)
    passes.refused.clear()
    before = dict(passes.replays)
    looks = [observe_replayed(row.subject, prompts, launched) for _ in range(max(1, warmup))]
    row.seen = reduce(Observation.at_best, looks)
    row.replayed = [name for name, times in passes.replays.items() if times > before.get(name, 0)]
    row.not_replayed = dict(passes.refused)
    if prompts.new_tokens > 1 and steps.refused is None:
        row.replayed.append(STEPS)
    elif prompts.new_tokens > 1:
        row.not_replayed[STEPS] = str(steps.refused)


def _settle(row: RowInProgress, prompts: Prompts) -> None:
    """Run as often as it takes: a shape comes, comes again and is captured, and is replayed."""
    for _ in range(3):
        _run(row, prompts)


def _run(row: RowInProgress, prompts: Prompts) -> dict[str, float]:
    """Run once; gives milliseconds by stage."""
    sums = dict.fromkeys(STAGES, 0.0)
    for lap in timed(row.subject, prompts):
        sums[lap.stage] += lap.ms
    return sums


def _time(row: RowInProgress, prompts: Prompts) -> None:
    for stage, ms in _run(row, prompts).items():
        row.times[stage].append(ms)


def _weigh(meter: EnergyMeter, row: RowInProgress, prompts: Prompts) -> None:
    """Measure the energy of one question."""
    row.joules = meter.joules(partial(run, row.subject, prompts, lambda stage: None)) / len(prompts.images)


def _finished(row: RowInProgress, new_tokens: int) -> Measured:
    """State a row; its operations are those of the tokens that its batch showed, mean over the pictures."""
    seen = row.seen
    assert seen is not None, "a row that nobody looked at has dropped out"
    work = Workload(
        grid=seen.grid,
        per_layer=tuple(seen.observed.per_layer),
        text=seen.text,
        new=new_tokens,
        pruner=row.pruner_flops,
        tower=seen.tower,
    )
    return Measured(
        pruner=row.pruner_row.info,
        budget=row.pruner_row.budget,
        observed=seen.observed,
        text_tokens=seen.text,
        times_ms=row.times,
        masked_layers=seen.masked,
        kv_bytes=seen.kv_bytes,
        peak_bytes=seen.peak_bytes,
        flops=flops_of(row.subject.family, work),
        work={stage: seen.work.get(stage, NOTHING) for stage in STAGES},  # without a tower or further tokens there is none
        joules=row.joules,
        replayed=row.replayed,
        not_replayed=row.not_replayed,
    )


def require_searchable(device: torch.device) -> None:
    """Raise `UserError` where the largest batch cannot be found."""
    if device.type != "cuda":
        raise UserError(f"--batch max searches the memory of a GPU, the device is {device}; give a number")


def _batches(rows: Sequence[RowInProgress], protocol: ProfileProtocol) -> list[int]:
    """Say which batches to measure; the largest is searched with vanilla, which holds most tokens, then the others are asked.

    With graphs all rows are asked together: while one takes its turn those of all others lie there.
    """
    if not protocol.largest:
        return list(protocol.batches)
    require_searchable(rows[0].subject.family.device)
    asked = [row.as_graphs() for row in rows] if protocol.graphs else rows
    others = [asked] if protocol.graphs else [[row] for row in asked[1:]]
    limit = largest(partial(_fits, asked[:1], protocol), LARGEST)
    found = largest_for_all([partial(_fits, rows, protocol) for rows in others], limit)
    if not found:
        raise UserError("not even one prompt fits the GPU; use a smaller model or dtype")
    return [*(batch for batch in protocol.batches if batch < found), found]


def _fits(rows: Sequence[RowInProgress], protocol: ProfileProtocol, batch: int) -> bool:
    """Try a batch with rows, and with those that they replay beside the graphs of all; one that drops out over it fits any.

    Where the allocator had to give back what it holds and ask the driver again, a batch does not fit: its times would be
    those of the driver.
    """
    family, prompts = rows[0].subject.family, protocol.prompts(batch)
    before = _retries(family.device)
    try:
        for row in rows:
            row.attempt(_settle if row.launched is not None else _run, prompts)
        for launched in [row.launched for row in rows if row.launched is not None]:
            launched.attempt(_run, prompts)
        return _retries(family.device) == before
    except TooLarge:
        return False
    finally:
        family.forget_graphs()
        torch.cuda.empty_cache()


def _retries(device: torch.device) -> int:
    return int(torch.cuda.memory_stats(device).get("num_alloc_retries", 0))


def _driver(device: torch.device) -> str | None:
    """Version of the GPU's driver, as its own tool says; None without a GPU or the tool."""
    if device.type != "cuda":
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", f"--id={device.index or 0}"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
