"""What is wrong with answers: those that mean nothing fail their cell, those that look as if are told of."""

from __future__ import annotations

from collections.abc import Sequence

from vtpbench.harness.records.cell import Answer, Journal
from vtpbench.pruners.errors import UserError

WIDER = {
    "float16": "its numbers overflow; set dtype: bfloat16, which has the range of float32, or float32",
    "bfloat16": "set dtype: float32, and look at the weights where that does not help",
}
"""What to do about logits that are not finite, by the number format of the model."""


def trusted(journal: Journal) -> dict[str, Answer]:
    """Read the answers of an earlier attempt, by sample, but for those that mean nothing: they are asked for again."""
    return {sample: answer for sample, answer in journal.known().items() if answer.finite}


def refuse_not_finite(answers: Sequence[Answer], dtype: str) -> None:
    """Raise `UserError` where logits of any answer were not finite: it has no score, and a rest would be another benchmark.

    `dtype` is the model's, as torch or as a suite names it.
    """
    bad = [answer for answer in answers if not answer.finite]
    if bad:
        name = dtype.removeprefix("torch.")
        advice = WIDER.get(name, "its weights are damaged, or the pruner makes what it merges so")
        share = f"{len(bad)} of {len(answers)} answers ({100 * len(bad) / len(answers):.3g} %)"
        first = f"first that to question {bad[0].sample}"
        raise UserError(f"{share}, {first}, come from logits that are not finite: the model runs in {name}, {advice}")
