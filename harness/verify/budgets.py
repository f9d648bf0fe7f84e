"""The tokens that stayed of each question against the budget that was asked for, as a run audits them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from vtpbench.harness.host.plugin_errors import plugin_errors
from vtpbench.harness.records.cell import Sample, tokens_for
from vtpbench.harness.records.record import PrunerInfo, Record
from vtpbench.harness.verify.counts import images_of
from vtpbench.pruners.base import LLAVA_1_5_7B, Pruner
from vtpbench.pruners.budget import met
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.registry import build

ANY_SIZE = 10**9
"""Tokens of an image of which only the most is known that may stay."""


@dataclass(frozen=True)
class _Rule:
    """What is due of an image of `n` tokens; an adaptive pruner may keep fewer."""

    due: Callable[[int], float]
    adaptive: bool


def budget_faults(record: Record, rows: Sequence[Sample], originals: Mapping[str, float]) -> Iterator[str]:
    """Say which question kept other tokens than its budget; of several the first, and how many more.

    Parameters
    ----------
    record : of the cell
    rows : its samples
    originals : vision tokens of each question's images before pruning, mean, as vanilla shows them; not needed where every
        image of the model has equally many

    """
    rule = _rule(record)
    missed = [told for row in rows if images_of(row) and (told := _missed(record, rule, row, originals.get(row.sample)))]
    if missed:
        yield missed[0] + (f"; so do {len(missed) - 1} more" if len(missed) > 1 else "")


def _missed(record: Record, rule: _Rule, row: Sample, original: float | None) -> str | None:
    fixed = record.model.vision_tokens
    if fixed is None and original is None and record.budget.tokens is None:
        return None  # a share of what is not known
    n = fixed or round(original or ANY_SIZE)
    alike = fixed is not None or (original is not None and images_of(row) == 1)
    at_most = not alike and record.budget.tokens is not None  # a small image among several keeps what it has
    due = rule.due(n)
    if met(row.tokens, due, adaptive=rule.adaptive or at_most):
        return None
    least = "at most " if rule.adaptive or at_most else ""
    return f"question {row.sample} kept {row.tokens:.2f} vision tokens in a layer on average, {least}{due:.2f} were due"


def _rule(record: Record) -> _Rule:
    """Ask the pruner what it owes, unless its code is in a file of somebody's or not installed: then the budget is the most."""
    is_vanilla = record.pruner.name == "vanilla"

    def plain(n: int) -> float:
        return float(n if is_vanilla else tokens_for(record.budget, n))

    if is_vanilla or names_code(record.pruner):
        return _Rule(plain, adaptive=not is_vanilla)
    try:
        with plugin_errors(record.pruner.name):
            pruner = build(record.pruner.name, record.pruner.options)
            adaptive = pruner.adaptive
    except UserError:
        return _Rule(plain, adaptive=True)
    return _Rule(lambda n: _due(record, pruner, n, plain(n)), adaptive)


def _due(record: Record, pruner: Pruner, n: int, budget: float) -> float:
    """Average that the pruner owes; differs from the budget where a paper's own list is asked for."""
    layers = len(record.observed.per_layer) if record.observed else LLAVA_1_5_7B.decoder_layers
    try:
        with plugin_errors(record.pruner.name):
            return pruner.expected_average(int(budget), n, replace(LLAVA_1_5_7B, decoder_layers=layers))
    except UserError:
        return budget


def names_code(pruner: PrunerInfo) -> bool:
    """Whether making a pruner would run a file that its record names: whoever sent the record may have sent the file."""
    return ".py" in json.dumps([pruner.name, pruner.options])
