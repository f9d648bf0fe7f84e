"""No pruning: the denominator of every relative accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vtpbench.pruners.base import Cut, ModelShape, Pruner


@dataclass(frozen=True)
class Vanilla(Pruner):
    """Keep all vision tokens.

    Source: the unmodified model.
    """

    source: ClassVar[str] = "the unmodified model"

    def cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        """Plan no cut: every token stays."""
        del budget, n, shape
        return ()

    def expected_average(self, budget: int, n: int, shape: ModelShape) -> float:
        """Demand all tokens, whatever the budget."""
        del budget, shape
        return float(n)
