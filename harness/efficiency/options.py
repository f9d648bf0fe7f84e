"""What `vtpbench profile` is asked for: models, pruners and budgets, of a suite or of the command line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from vtpbench.harness.efficiency.counting import count_rows
from vtpbench.harness.efficiency.profile import THROUGHPUT, ProfileProtocol, machine, now, profile, require_searchable
from vtpbench.harness.efficiency.profiled_model import describe, describe_counted, open_for_speed
from vtpbench.harness.efficiency.rows import Progress, PrunerRow
from vtpbench.harness.efficiency.timers import start_timer
from vtpbench.harness.efficiency.without_weights import NOWHERE
from vtpbench.harness.host.device import open_device
from vtpbench.harness.host.files import prepare, write_atomic
from vtpbench.harness.models.dummy import filler, open_dummy
from vtpbench.harness.models.load import Described
from vtpbench.harness.records.efficiency import PLACE, SUFFIX, EfficiencyRecord
from vtpbench.harness.records.record import DUMMY, BudgetInfo, Dtype, PrunerInfo
from vtpbench.harness.suite.options import NEUTRAL, model_path, read_option, validate_option
from vtpbench.harness.suite.specs import (
    DUMMY_PREFIX,
    Budget,
    ModelSpec,
    PrunerSpec,
    automatic,
    build_described,
    refuse_large_budget,
    with_random_weights,
)
from vtpbench.harness.suite.suite import load
from vtpbench.pruners.base import Pruner
from vtpbench.pruners.errors import UserError, did_you_mean

TEXT_TOKENS = 32
"""Of a dummy's prompt, as in Table 4 of the OC-VTP paper."""


@dataclass(frozen=True)
class ProfileOptions:
    """What the command line says; a suite, perhaps with other budgets, or a model with pruners and budgets."""

    suite: str | None = None
    model: str | None = None
    pruners: Sequence[str] = ()
    budgets: Sequence[str] = ()
    dtype: str | None = None
    device: str | None = None
    out: Path = Path("results")
    flops_only: bool = False
    throughput: bool = False
    protocol: ProfileProtocol = dataclasses.field(default_factory=lambda: ProfileProtocol(""))
    """Its question is filled in."""


@dataclass(frozen=True)
class ProfileTask:
    """One model with its rows."""

    suite: str
    described: Described
    pruner_rows: tuple[PrunerRow, ...]


def profile_models(order: ProfileOptions, progress: Progress) -> list[Path]:
    """Measure, model after model, and write a record for each; returns the files.

    Before a model is opened it raises `UserError` for every mistake in the order, for files that pruners name and that are
    not there, and for a folder that cannot be written.
    """
    if order.dtype is not None and order.dtype not in get_args(Dtype):
        raise UserError(f"--dtype {order.dtype}: {did_you_mean(order.dtype, get_args(Dtype))}")
    if order.flops_only:
        return [_count(task, order, progress) for task in _prepared(order)]
    device = open_device(order.device)
    start_timer(device)  # refuses what has no clock
    if order.throughput:
        protocol = dataclasses.replace(order.protocol, batches=THROUGHPUT, largest=device.type == "cuda")
        order = dataclasses.replace(order, protocol=protocol)
    if order.protocol.largest:
        require_searchable(device)
    if order.protocol.graphs and device.type != "cuda":
        raise UserError(f"--graphs replays CUDA graphs, and the device is {device}; leave it out, or run on a GPU")
    return [path for task in _prepared(order) for path in _measure(task, order, device, progress)]


def _prepared(order: ProfileOptions) -> list[ProfileTask]:
    tasks = list(_of_suite(order) if order.suite is not None else _of_options(order))
    for task in tasks:
        prepare(_folder(task, order))
    return tasks


def _of_suite(order: ProfileOptions) -> Iterator[ProfileTask]:
    if order.model is not None or order.pruners:
        raise UserError("give either a suite, or --model with --pruner and --budget")
    assert order.suite is not None
    suite, budgets = load(order.suite), _budgets(order)
    for model in suite.models:
        matrices = [matrix for matrix in suite.matrix if matrix.models is None or model.label in matrix.models]
        asked = [(spec, budget) for matrix in matrices for spec in matrix.pruners for budget in budgets or matrix.budgets]
        yield _task(suite.name, model, str(model.attention), asked, order)


def _of_options(order: ProfileOptions) -> Iterator[ProfileTask]:
    if order.model is None or not order.pruners or not order.budgets:
        raise UserError("name what to profile: a suite, or --model, --pruner and --budget, e.g. --pruner fastv --budget 64")
    label = _label(order.model)
    model: ModelSpec = validate_option("--model", order.model, {"path": model_path(order.model), "label": label}, ModelSpec)
    named = model.model_copy(update={"path": order.model})  # where it lies is no part of a record
    specs = [read_option("--pruner", text, PrunerSpec) for text in order.pruners]
    yield _task(label, named, "sdpa", [(spec, budget) for spec in specs for budget in _budgets(order)], order)


def _budgets(order: ProfileOptions) -> list[BudgetInfo]:
    return [read_option("--budget", text, Budget) for text in order.budgets]


def _label(model: str) -> str:
    """Name a model as the last part of its path."""
    if model.startswith(DUMMY_PREFIX):
        return Path(model.removeprefix(DUMMY_PREFIX)).name.removesuffix(".json") or model
    return Path(model).absolute().name


def _task(
    suite: str, model: ModelSpec, attention: str, asked: Sequence[tuple[PrunerSpec, BudgetInfo]], order: ProfileOptions
) -> ProfileTask:
    known = describe_counted if order.flops_only else describe
    described = known(model, order.dtype or model.dtype, attention)
    for _, budget in asked:
        refuse_large_budget(budget, described.info.vision_tokens, described.info.label)
    if order.flops_only and described.shape.folder is None:
        asked = [(_untrained(spec), budget) for spec, budget in asked]
    return ProfileTask(suite, described, pruner_rows(asked, lambda pruner: pruner.fingerprint(described.shape)))


def _untrained(spec: PrunerSpec) -> PrunerSpec:
    return spec.model_copy(update={"options": with_random_weights(spec.name, spec.options)})


def pruner_rows(
    asked: Sequence[tuple[PrunerSpec, BudgetInfo]], fingerprint: Callable[[Pruner], str] = lambda pruner: ""
) -> tuple[PrunerRow, ...]:
    """Put vanilla first, then random at every budget that it is not asked for, then what is asked for, twins once.

    `fingerprint` hashes the files beside a pruner's options. Raises `UserError` for rows that the table could not tell apart,
    and where a file is not there.
    """
    vanilla, floor = automatic(spec for spec, _ in asked)
    known = {budget for spec, budget in asked if spec.name == floor.name}
    floors = [(floor, budget) for budget in dict.fromkeys(budget for _, budget in asked) if budget not in known]
    pruned = [(spec, budget) for spec, budget in asked if spec.name != vanilla.name]
    rows = [_pruner_row(spec, budget, fingerprint) for spec, budget in [(vanilla, BudgetInfo()), *floors, *pruned]]
    _refuse_namesakes(rows)
    return tuple({(row.info.label, row.budget): row for row in rows}.values())


def _pruner_row(spec: PrunerSpec, budget: BudgetInfo, fingerprint: Callable[[Pruner], str]) -> PrunerRow:
    pruner, info = build_described(spec, fingerprint)
    return PrunerRow(info, pruner, budget)


def _refuse_namesakes(rows: Sequence[PrunerRow]) -> None:
    pruners: dict[str, PrunerInfo] = {}
    budgets: dict[str, BudgetInfo] = {}
    for row in rows:
        label, name = row.info.label, row.info.name
        if pruners.setdefault(label, row.info) != row.info:
            raise UserError(f"two rows are called '{label}'; give labels: '{{label: ..., name: {name}, options: {{...}}}}'")
        if budgets.setdefault(row.budget.label, row.budget) != row.budget:
            raise UserError(f"two budgets are called {row.budget.label}; remove one")


def _folder(task: ProfileTask, order: ProfileOptions) -> Path:
    return order.out / PLACE / task.suite


def _measure(task: ProfileTask, order: ProfileOptions, device: torch.device, progress: Progress) -> list[Path]:
    """Measure one model, batch after batch; each has its record as soon as it is done."""
    if order.protocol.graphs and "flash" in task.described.info.attention:
        raise UserError("--graphs needs a kernel that takes a mask of columns, and FlashAttention does not; use attention: sdpa")
    family, info = open_for_speed(task.described, device), task.described.info
    question = filler(family, TEXT_TOKENS) if info.weights == DUMMY else NEUTRAL
    protocol = dataclasses.replace(order.protocol, question=question)
    records = profile(family, info, task.pruner_rows, protocol, task.suite, _prefixed(info.label, progress))
    return [_written(record, task, order) for record in records]


def _count(task: ProfileTask, order: ProfileOptions, progress: Progress) -> Path:
    """Count the operations of one model, of which only the configuration is known."""
    info, family = task.described.info, open_dummy(task.described, NOWHERE)
    family.shape = dataclasses.replace(family.shape, folder=task.described.shape.folder)  # trained pruners lie there
    protocol = dataclasses.replace(order.protocol, question=filler(family, TEXT_TOKENS))
    rows = count_rows(family, task.pruner_rows, protocol.prompts(1), _prefixed(info.label, progress))
    where = machine(torch.device("cpu"))
    nothing_run = where.environment.model_copy(update={"device": "none"})
    record = EfficiencyRecord(
        suite=task.suite,
        model=info,
        load=protocol.load(1, 0).model_copy(update={"warmup": 0}),
        machine=where.model_copy(update={"environment": nothing_run}),
        rows=rows,
        created=now(),
    )
    return _written(record, task, order)


def _written(record: EfficiencyRecord, task: ProfileTask, order: ProfileOptions) -> Path:
    path = _folder(task, order) / file_name(record)
    write_atomic(path, record.dump().encode())
    return path


def file_name(record: EfficiencyRecord) -> str:
    """Name the file of a record: the model, the batch, and the hash of what was measured."""
    model = re.sub(r"[^\w.-]+", "-", record.model.label).strip("-.").lower()
    return f"{model}-batch{record.load.batch}{'-graphs' * record.load.graphs}-{record.id}{SUFFIX}"


def _prefixed(label: str, progress: Progress) -> Progress:
    def said(phase: str, done: int, total: int) -> None:
        progress(f"{label}: {phase}", done, total)

    return said


def read_protocol(
    batches: Sequence[str], picture: str, new_tokens: int, warmup: int, repeats: int, *, graphs: bool = False
) -> ProfileProtocol:
    """Read the command line's `--batch 8 --batch max` and `--picture 640x480`; raises `UserError`."""
    size = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", picture)
    if size is None:
        raise UserError(f"--picture {picture}: write WIDTHxHEIGHT in pixels, e.g. 640x480")
    for batch in batches:
        if batch != "max" and not re.fullmatch(r"[1-9]\d*", batch):
            raise UserError(f"--batch {batch}: give a number from 1, or max")
    numbers = sorted({int(batch) for batch in batches if batch != "max"})
    pixels = int(size[1]), int(size[2])
    return ProfileProtocol("", tuple(numbers), "max" in batches, pixels, new_tokens, warmup, repeats, graphs)
