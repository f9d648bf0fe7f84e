"""Text only: the floor that shows what a model answers without seeing the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vtpbench.pruners.base import Cut, ModelShape, Pruner, TokenView

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TextOnly(Pruner):
    """Remove all vision tokens, whatever the budget: the rows of all budgets answer alike, with 0 tokens observed.

    Source: baseline of the field.
    """

    source: ClassVar[str] = "baseline"

    def cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        """Cut everything before the language model."""
        del budget, n, shape
        return (Cut(0, 0),)

    def expected_average(self, budget: int, n: int, shape: ModelShape) -> float:
        """Demand no token at all."""
        del budget, n, shape
        return 0.0

    def select(self, view: TokenView) -> Tensor:
        """Choose no token, `(images, 0)`."""
        return view.index[:, :0]
