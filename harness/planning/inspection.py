"""A suite seen from a machine that need not have its models and data: what is missing is described by what comes along."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from vtpbench.harness.efficiency.profiled_model import describe_counted
from vtpbench.harness.host import hub
from vtpbench.harness.run.job import Inspection, describe_checkpoint
from vtpbench.harness.suite.specs import with_random_weights
from vtpbench.harness.suite.task_data import fingerprint, is_here

if TYPE_CHECKING:
    from vtpbench.harness.models.load import Described
    from vtpbench.harness.records.cell import Cell
    from vtpbench.harness.suite.benchmarks import Benchmark
    from vtpbench.harness.suite.specs import ModelSpec

NOT_HERE = "not here"
"""In place of the hash of weights or data that this machine lacks; in no record."""


def describe_anywhere(spec: ModelSpec) -> Described:
    """Say what a model is: of a checkpoint that is not here, what its configuration says.

    That comes with vtpbench for published models, and is fetched for others. Raises `UserError` where it cannot be.
    """
    if spec.dummy is not None or Path(spec.location).is_dir() or hub.cached_model(spec.path, spec.revision) is not None:
        return describe_checkpoint(spec)
    described = describe_counted(spec, spec.dtype, str(spec.attention))
    return dataclasses.replace(described, info=described.info.model_copy(update={"weights": NOT_HERE}))


def dataset_anywhere(benchmark: Benchmark) -> str:
    """Name what a benchmark asks; `NOT_HERE` where that cannot be known on this machine, which asks nobody."""
    return fingerprint(benchmark) if is_here(benchmark) else NOT_HERE


def foreseen_anywhere(cell: Cell) -> Cell:
    """Suppose that what a model's folder would hold is there once the model is: a trained pruner's weights."""
    if cell.model.weights != NOT_HERE:
        return cell
    options = with_random_weights(cell.pruner.name, cell.pruner.options)
    return dataclasses.replace(cell, pruner=cell.pruner.model_copy(update={"options": options}))


ANYWHERE = Inspection(describe_anywhere, dataset_anywhere, foreseen_anywhere)
"""Looks at what is here, and asks the hub for nothing but the configuration of a model that is not."""
