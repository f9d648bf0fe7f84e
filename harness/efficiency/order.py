"""What `vtpbench profile` is asked for: models, pruners and budgets, of a suite or of the command line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from vtpbench.harness.efficiency.profile import Contestant, Progress, Protocol, profile, require_searchable
from vtpbench.harness.efficiency.record import PLACE, SUFFIX, EfficiencyRecord
from vtpbench.harness.files import write_atomic
from vtpbench.harness.job import open_device
from vtpbench.harness.models.dummy import DUMMY, describe_dummy, filler, open_dummy
from vtpbench.harness.models.family import Family
from vtpbench.harness.models.load import Described, describe_model, open_model
from vtpbench.harness.options import DEMO, NEUTRAL, default_dtype, model_path, read_option
from vtpbench.harness.record import BudgetInfo
from vtpbench.harness.specs import Budget, Dtype, ModelSpec, PrunerSpec, describe_pruner
from vtpbench.harness.suite import load
from vtpbench.pruners.errors import UserError, did_you_mean
from vtpbench.pruners.registry import build

PREFIX = f"{DUMMY}:"
"""Before the name of a configuration: a model of that shape with random weights."""
TEXT_TOKENS = 32
"""Of a dummy's prompt, as in Table 4 of the OC-VTP paper."""
ALWAYS = PrunerSpec(name="random", label="random")
"""In every table, as in the paper's Figure 3."""
VANILLA = PrunerSpec(name="vanilla", label="vanilla")


@dataclass(frozen=True)
class Order:
    """What the command line says; a suite, or a model with pruners and budgets."""

    suite: str | None = None
    model: str | None = None
    pruners: Sequence[str] = ()
    budgets: Sequence[str] = ()
    dtype: str | None = None
    device: str | None = None
    out: Path = Path("results")
    protocol: Protocol = dataclasses.field(default_factory=lambda: Protocol(""))
    """Its question is filled in."""


@dataclass(frozen=True)
class Task:
    """One model with its rows."""

    suite: str
    described: Described
    contestants: tuple[Contestant, ...]


def profile_order(order: Order, progress: Progress) -> list[Path]:
    """Measure, model after model, and write a record for each; returns the files.

    Raises `UserError` for every mistake in the order before a model is opened.
    """
    if order.dtype is not None and order.dtype not in get_args(Dtype):
        raise UserError(f"--dtype {order.dtype}: {did_you_mean(order.dtype, get_args(Dtype))}")
    device = open_device(order.device)
    if order.protocol.batch is None:
        require_searchable(device)
    tasks = list(_of_suite(order) if order.suite is not None else _of_options(order, device))
    return [_measure(task, order, device, progress) for task in tasks]


def describe(spec: ModelSpec, dtype: str, attention: str) -> Described:
    """Say what a model is: a checkpoint, or behind `dummy:` a configuration that random weights are drawn for."""
    options: dict[str, Any] = {"dtype": dtype, "attention": attention, "preprocessing": spec.preprocessing}
    if spec.path.startswith(PREFIX):
        described = describe_dummy(spec.path.removeprefix(PREFIX), **options)
    else:
        described = describe_model(spec.label, spec.location, revision=spec.revision, prompt=spec.prompt, **options)
    info = described.info.model_copy(update={"id": spec.path, "label": spec.label})
    return dataclasses.replace(described, info=info)


def open_for_speed(described: Described, device: torch.device) -> Family:
    """Open a model whose answers never end early, so that all rows generate equally many tokens."""
    from transformers import GenerationConfig

    if described.info.weights == DUMMY:
        return open_dummy(described, device)
    family = open_model(described, device)
    family.model.generation_config = GenerationConfig()
    return family


def _of_suite(order: Order) -> Iterator[Task]:
    if order.model is not None or order.pruners or order.budgets:
        raise UserError("give either a suite, or --model with --pruner and --budget")
    assert order.suite is not None
    suite = load(order.suite)
    for model in suite.models:
        matrices = [matrix for matrix in suite.matrix if matrix.models is None or model.label in matrix.models]
        asked = [(spec, budget) for matrix in matrices for spec in matrix.pruners for budget in matrix.budgets]
        described = describe(model, order.dtype or str(model.dtype), str(model.attention))
        yield Task(suite.name, described, contestants(asked))


def _of_options(order: Order, device: torch.device) -> Iterator[Task]:
    if order.model is None or not order.pruners or not order.budgets:
        raise UserError("name what to profile: a suite, or --model, --pruner and --budget, e.g. --pruner fastv --budget 64")
    label = DEMO if order.model == DEMO else Path(order.model.removeprefix(PREFIX)).name
    model: ModelSpec = read_option("--model", model_path(order.model), ModelSpec)
    named = model.model_copy(update={"label": label, "path": order.model})  # where it lies is no part of a record
    described = describe(named, order.dtype or default_dtype(device), "sdpa")
    specs = [read_option("--pruner", text, PrunerSpec) for text in order.pruners]
    budgets = [read_option("--budget", text, Budget) for text in order.budgets]
    yield Task(label, described, contestants([(spec, budget) for spec in specs for budget in budgets]))


def contestants(asked: Sequence[tuple[PrunerSpec, BudgetInfo]]) -> tuple[Contestant, ...]:
    """Put vanilla first, then random at every budget, then what was asked for."""
    pruned = [(spec, budget) for spec, budget in asked if spec.name != VANILLA.name]
    floors = [] if any(spec.name == ALWAYS.name for spec, _ in pruned) else [(ALWAYS, budget) for _, budget in pruned]
    rows = {(spec.label, budget.label): (spec, budget) for spec, budget in [(VANILLA, BudgetInfo()), *floors, *pruned]}
    return tuple(_contestant(spec, budget) for spec, budget in rows.values())


def _contestant(spec: PrunerSpec, budget: BudgetInfo) -> Contestant:
    pruner = build(spec.name, spec.placed)
    return Contestant(describe_pruner(spec, pruner), pruner, budget)


def _measure(task: Task, order: Order, device: torch.device, progress: Progress) -> Path:
    family, info = open_for_speed(task.described, device), task.described.info
    question = filler(family, TEXT_TOKENS) if info.weights == DUMMY else NEUTRAL
    protocol = dataclasses.replace(order.protocol, question=question)
    record = profile(family, info, task.contestants, protocol, task.suite, _prefixed(info.label, progress))
    path = order.out / PLACE / task.suite / file_name(record)
    write_atomic(path, record.dump().encode())
    return path


def file_name(record: EfficiencyRecord) -> str:
    """Name the file of a record: the model, the batch, and the hash of what was measured."""
    model = re.sub(r"[^\w.-]+", "-", record.model.label).strip("-.").lower()
    return f"{model}-batch{record.load.batch}-{record.id}{SUFFIX}"


def _prefixed(label: str, progress: Progress) -> Progress:
    def said(phase: str, done: int, total: int) -> None:
        progress(f"{label}: {phase}", done, total)

    return said


def read_protocol(batch: str, picture: str, new_tokens: int, warmup: int, repeats: int) -> Protocol:
    """Read the command line's `--batch 8|max` and `--picture 640x480`; raises `UserError`."""
    size = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", picture)
    if size is None:
        raise UserError(f"--picture {picture}: write WIDTHxHEIGHT in pixels, e.g. 640x480")
    if batch != "max" and not re.fullmatch(r"[1-9]\d*", batch):
        raise UserError(f"--batch {batch}: give a number from 1, or max")
    return Protocol("", None if batch == "max" else int(batch), (int(size[1]), int(size[2])), new_tokens, warmup, repeats)
