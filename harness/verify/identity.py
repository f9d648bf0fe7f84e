"""Whether the id of a record is the hash of what the record says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, combinations, product

from vtpbench.harness.records.cell import Cell
from vtpbench.harness.records.record import PYTHON, VTPBENCH, PrunerInfo, Record
from vtpbench.harness.suite.specs import FILE

LARGEST_BATCH = 256
"""Batch size up to which a cell that never was asked a question is recognised."""


def is_named_after_its_facts(record: Record, batch_sizes: Iterable[int]) -> bool:
    """Whether a record's id is that of a cell which the record describes.

    A record does not say all that its cell was asked with: which of a pruner's options are files, whether replayed steps were
    asked for of a model that cannot have them, nor, where no question was reached, the batch size. What fits is enough.

    Parameters
    ----------
    record : whose id is in question
    batch_sizes : of records beside it, which are tried first

    """
    return any(cell.id == record.cell_id for cell in cells_of(record, batch_sizes))


def deciding_versions(record: Record) -> dict[str, str]:
    """Versions that are a part of a cell's identity."""
    return {name: version for name, version in record.environment.versions.items() if name not in (VTPBENCH, PYTHON)}


def cells_of(record: Record, batch_sizes: Iterable[int]) -> Iterator[Cell]:
    """Cells that a record may be of."""
    batch = record.batch
    sizes = dict.fromkeys([*batch_sizes, *range(1, LARGEST_BATCH + 1)]) if batch is None else (batch.requested,)
    prefixes = (True, False) if batch is None else (batch.share_prefix,)
    for pruner, size, prefix, graphs in product(_pruners(record.pruner), sizes, prefixes, (True, False)):
        run = size, deciding_versions(record), prefix, graphs
        yield Cell(record.model, pruner, record.budget, record.benchmark, record.seed, *run)


def _pruners(info: PrunerInfo) -> list[PrunerInfo]:
    """Give a pruner with each choice of options that may name files: of those, their content is a part of the id."""
    if info.fingerprint is None:
        return [info]
    named = [name for name, value in info.options.items() if isinstance(value, str) and FILE.fullmatch(value)]
    choices = chain.from_iterable(combinations(named, n) for n in range(len(named) + 1))
    return [info.model_copy(update={"files": dict.fromkeys(chosen, "")}) for chosen in choices]
