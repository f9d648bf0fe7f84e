"""`lmms-eval --model vtpbench`: one cell in lmms-eval's own hands."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError

from vtpbench.harness.host.launcher import refuse_launcher
from vtpbench.harness.models.load import open_model
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.pruning.schedule import no_budget
from vtpbench.harness.records.cell import tokens_for
from vtpbench.harness.records.record import BudgetInfo
from vtpbench.harness.run.adapter import Adapter
from vtpbench.harness.run.answering import Answerer
from vtpbench.harness.run.job import describe_checkpoint
from vtpbench.harness.suite.bounded_yaml import read_value
from vtpbench.harness.suite.options import read_option, validate_option
from vtpbench.harness.suite.specs import Budget, ModelSpec, PrunerSpec
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.registry import build, find
from vtpbench.pruners.vanilla import Vanilla

if TYPE_CHECKING:
    from vtpbench.harness.pruning.schedule import BudgetRule
    from vtpbench.pruners.base import Pruner


class Plugin(Adapter):
    """`lmms-eval --model vtpbench --model_args pretrained=...,pruner=random,budget=16`: one cell in lmms-eval's own hands.

    `pretrained` and what follows `budget` below is said of the model as in a suite; `budget` is a count, or a share such as
    `11.1%`. `pruner` is a name, and every further argument an option of it; or it is written in braces as in a suite, with its
    options: `pruner={oc-vtp: {attention: cls}}`, `pruner={sequence: [pool, {dart: {layer: 1}}]}`.

    Raises
    ------
    UserError : an argument that cannot be used, or belongs to the model and to the pruner that is named without braces

    """

    def __init__(
        self,
        pretrained: str,
        pruner: str = "vanilla",
        budget: str | int | None = None,
        dtype: str | None = None,
        attention: str | None = None,
        preprocessing: str | None = None,
        prompt: str | None = None,
        text_tower: str | None = None,
        batch_size: int | str = 8,
        device: str | None = None,
        max_batch_size: object = None,
        **options: Any,
    ) -> None:
        del max_batch_size
        refuse_launcher()
        questions = _batch_size(batch_size)
        said = {
            "dtype": dtype,
            "attention": attention,
            "preprocessing": preprocessing,
            "prompt": prompt,
            "text_tower": text_tower,
        }
        given = {name: value for name, value in said.items() if value is not None}
        chosen = _pruner(str(pruner), options, given)
        wanted = _budget(budget, chosen, pruner)
        described = describe_checkpoint(_model({"path": pretrained, "attention": "sdpa", **given}))
        family = open_model(described, torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
        answerer = Answerer(Pipeline(family, chosen, wanted), questions)
        info = described.info
        files = chosen.fingerprint(described.shape)
        super().__init__(answerer, None, f"vtpbench {info.weights} {info.tower} {chosen!r} {files} {budget}")


def _batch_size(given: int | str) -> int:
    """Read what lmms-eval's command line was given, which also takes `auto`."""
    if not str(given).isdecimal() or int(given) < 1:
        raise UserError(f"batch_size {str(given)!r:.40}: give a number of questions, such as --batch_size 8")
    return int(given)


def _model(given: Mapping[str, Any]) -> ModelSpec:
    try:
        return ModelSpec.model_validate(given)
    except ValidationError as e:
        first = e.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "path"
        raise UserError(f"{'pretrained' if name == 'path' else name}={given.get(name)}: {first['msg']}") from e


def _pruner(written: str, options: Mapping[str, Any], of_model: Collection[str]) -> Pruner:
    """Read a pruner in braces, as a suite has it, or a name with its options beside it; a seed stands beside either."""
    plain = {name: read_value(value, name) if isinstance(value, str) else value for name, value in options.items()}
    seed = {"seed": plain.pop("seed")} if "seed" in plain else {}
    if written.strip().startswith("{"):
        if plain:
            raise UserError(f"{', '.join(plain)}: no argument of the model; options of {written} stand inside its braces")
        spec: PrunerSpec = read_option("pruner", written, PrunerSpec)
    else:
        both = {field.name for field in dataclasses.fields(find(written).load())} & {*of_model, "budget"}
        if both:
            name = min(both)
            raise UserError(
                f"{name} is an argument of the model and an option of {written}; write the pruner with its options in braces, "
                f"pruner={{{written}: {{{name}: ...}}}}, and {name}=... is the model's"
            )
        spec = validate_option("pruner", written, {"name": written, "options": plain}, PrunerSpec)
    return build(spec.name, {**spec.placed, **seed})


def _budget(budget: str | int | None, pruner: Pruner, name: str) -> BudgetRule:
    if budget is None:
        if not isinstance(pruner, Vanilla):
            raise UserError(f"pruner '{name}' needs a budget: budget=64 or budget=11.1%")
        return no_budget
    info: BudgetInfo = read_option("budget", str(budget), Budget)
    return lambda n: tokens_for(info, n)
