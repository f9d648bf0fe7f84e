"""Operations without any run: a model of shapes alone, no weights, no device, every pruner's own operations included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from vtpbench.harness.efficiency.flops import Convention, Workload, count
from vtpbench.harness.efficiency.pruner_flops import PromptCounter, PrunerFlops
from vtpbench.harness.efficiency.rows import Progress, PrunerRow, RowInProgress
from vtpbench.harness.efficiency.stages import Prompts, PrunerAtBudget
from vtpbench.harness.efficiency.without_weights import KnownIntegers
from vtpbench.harness.models.dimensions import Dimensions
from vtpbench.harness.models.family import Family
from vtpbench.harness.records.efficiency import FlopsInfo, Measured
from vtpbench.harness.records.record import Observed
from vtpbench.pruners.errors import Unsupported


def flops_of(family: Family, work: Workload) -> dict[str, FlopsInfo]:
    """Count the operations of a prompt in every convention."""
    dimensions = Dimensions.from_config(family.model.config)
    found = {convention: count(dimensions, work, convention) for convention in get_args(Convention)}
    return {
        convention: FlopsInfo(
            vision=flops.vision,
            pruner=flops.pruner,
            projector=flops.projector,
            prefill=list(flops.prefill),
            head=flops.head,
            decode=sum(flops.decode),
        )
        for convention, flops in found.items()
    }


def count_rows(family: Family, pruner_rows: Sequence[PrunerRow], prompts: Prompts, progress: Progress) -> list[Measured]:
    """Count what every row does with the first prompt, on a model that lies on `without_weights.NOWHERE`.

    The harness and the pruners run as they always do, on tensors that have shapes alone, under the counter that a measured
    profile uses. A pruner whose count depends on the picture is a row that says so.
    """
    rows = [RowInProgress(each, PrunerAtBudget(family, each.pruner, each.budget)) for each in pruner_rows]
    with KnownIntegers():
        counter = PromptCounter(family, prompts.images[0], prompts.question)
        done = []
        for n, row in enumerate(rows):
            progress("count", n, len(rows))
            done.append(_counted(row, counter, prompts))
        progress("count", len(rows), len(rows))
        return done


def _counted(row: RowInProgress, counter: PromptCounter, prompts: Prompts) -> Measured:
    found: list[PrunerFlops] = []
    row.attempt(lambda row, prompts: found.append(_of_pruner(row.subject, counter)), prompts)
    return row.dropped or _finished(row, found[0], prompts.new_tokens)


def _of_pruner(subject: PrunerAtBudget, counter: PromptCounter) -> PrunerFlops:
    try:
        return counter.measure(subject.pruner, subject.tokens(counter.tokens))
    except RuntimeError as e:  # torch's word for asking values of what has none
        if subject.pruner.adaptive:
            raise Unsupported("how many tokens it keeps depends on the picture; profile it on a device") from e
        raise


def _finished(row: RowInProgress, found: PrunerFlops, new_tokens: int) -> Measured:
    family = row.subject.family
    decoder = Dimensions.from_config(family.model.config).decoder
    entered = [float(n) for n in found.per_layer]
    work = Workload(found.tokens.grid, tuple(entered), found.text, new_tokens, float(found.total), found.tokens.tower)
    cached = decoder.cached * family.model.dtype.itemsize  # of one token in one layer
    return Measured(
        pruner=row.pruner_row.info,
        budget=row.pruner_row.budget,
        observed=Observed(tokens=sum(entered) / len(entered), original=float(found.tokens.original), per_layer=entered, images=1),
        text_tokens=found.text,
        kv_bytes=int(cached * sum(n + found.text for n in entered)),
        flops=flops_of(family, work),
    )
