"""What a caller says of pruners and budgets, made into a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

from vtpbench.harness.host.plugin_errors import plugin_errors
from vtpbench.harness.models.family import Family
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.pruning.schedule import no_budget
from vtpbench.harness.records.cell import tokens_for
from vtpbench.harness.records.record import BudgetInfo
from vtpbench.harness.suite.options import validate_option
from vtpbench.harness.suite.specs import Budget, build_seeded, refuse_large_budget
from vtpbench.pruners.base import Pruner
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.vanilla import Vanilla


def make_pipeline(
    family: Family, pruner: str | Pruner, budget: int | str | None, seed: int | None, options: Mapping[str, Any]
) -> Pipeline:
    """Make the pipeline of a `pruned` block.

    Raises
    ------
    UserError : an unknown pruner, option or budget; a budget above the tokens of an image, where all images have equally many
    Infeasible, Unsupported : the same pruner on the same model would fail for every image

    """
    chosen = read_pruner(pruner, seed, options)
    asked = read_budget(budget, chosen)
    pipeline = Pipeline(family, chosen, no_budget if asked is None else lambda n: tokens_for(asked, n))
    every = family.fixed_geometry
    if every is not None:
        refuse_large_budget(asked or BudgetInfo(), every.tokens, type(family.model).__name__)
        pipeline.schedule(every)
    return pipeline


def read_pruner(pruner: str | Pruner, seed: int | None, options: Mapping[str, Any]) -> Pruner:
    """Make a pruner of a name and options, or take one as it is."""
    if isinstance(pruner, str):
        with plugin_errors(pruner):
            return build_seeded(pruner, options, seed or 0)
    if not isinstance(pruner, Pruner):
        raise UserError(f"{pruner!r} is no pruner; give a name such as 'fastv', './mine.py:Mine', or an object of a Pruner class")
    given = [*options, *(["seed"] if seed is not None else [])]
    if given:
        raise UserError(f"{type(pruner).__name__} is made already; give {', '.join(given)} where it is made")
    return pruner


def read_budget(budget: int | str | None, pruner: Pruner) -> BudgetInfo | None:
    """Read a count or a percentage; None, which only vanilla may have, is no budget."""
    if isinstance(pruner, Vanilla):
        return None
    if budget is None:
        raise UserError(f"{type(pruner).__name__} needs a budget: vision tokens (budget=64), or a share of them (budget='11.1%')")
    plain = int(budget) if isinstance(budget, Integral) and not isinstance(budget, bool) else budget
    found: BudgetInfo = validate_option("budget", str(budget), plain, Budget)
    return found
