"""`lmms-eval --model vtpbench`: one cell in lmms-eval's own hands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from vtpbench.harness.host.launcher import refuse_launcher
from vtpbench.harness.models.load import describe_model, open_model
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.records.cell import tokens_for
from vtpbench.harness.records.record import BudgetInfo
from vtpbench.harness.run.adapter import Adapter
from vtpbench.harness.run.answering import Answerer
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.registry import build

if TYPE_CHECKING:
    from vtpbench.harness.pruning.schedule import BudgetRule


class Plugin(Adapter):
    """`lmms-eval --model vtpbench --model_args pretrained=...,pruner=random,budget=16`: one cell in lmms-eval's own hands.

    `budget` is a count, or a share such as `11.1%`; every further argument is an option of the pruner.
    """

    def __init__(
        self,
        pretrained: str,
        pruner: str = "vanilla",
        budget: str | int | None = None,
        dtype: str | None = None,
        attention: str = "sdpa",
        preprocessing: str | None = None,
        batch_size: int | str = 8,
        device: str | None = None,
        max_batch_size: object = None,
        **options: Any,
    ) -> None:
        del max_batch_size
        refuse_launcher()
        questions = _batch_size(batch_size)
        described = describe_model(pretrained, pretrained, dtype=dtype, attention=attention, preprocessing=preprocessing)
        wanted = _budget(budget, pruner)
        family = open_model(described, torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
        answerer = Answerer(Pipeline(family, build(pruner, options), wanted), questions)
        info = described.info
        super().__init__(answerer, None, f"vtpbench {info.weights} {info.tower} {pruner} {budget} {sorted(options.items())}")


def _batch_size(given: int | str) -> int:
    """Read what lmms-eval's command line was given, which also takes `auto`."""
    if not str(given).isdecimal() or int(given) < 1:
        raise UserError(f"batch_size {str(given)!r:.40}: give a number of questions, such as --batch_size 8")
    return int(given)


def _budget(budget: str | int | None, pruner: str) -> BudgetRule:
    if budget is None:
        if pruner != "vanilla":
            raise UserError(f"pruner '{pruner}' needs a budget: budget=64 or budget=11.1%")
        return lambda n: None
    text = str(budget)
    try:
        info = BudgetInfo(ratio=float(text[:-1]) / 100) if text.endswith("%") else BudgetInfo(tokens=int(text))
    except ValueError as e:
        raise UserError(f"budget {budget!r} is neither a count nor a share such as 11.1%") from e
    return lambda n: tokens_for(info, n)
