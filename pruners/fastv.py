"""FastV: after a few layers, keep the tokens that the last prompt token attends to most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from vtpbench.pruners.base import Cut, Evidence, ModelShape, Pruner, TokenView, average_in
from vtpbench.pruners.budget import one_of, published, single_cut
from vtpbench.pruners.errors import BadOption, UserError

if TYPE_CHECKING:
    from torch import Tensor

CITED = {192: 180, 128: 114, 64: 48}
"""Tokens kept in the all-row variant that the SparseVLM authors ran and later papers cite as FastV."""


@dataclass(frozen=True)
class FastV(Pruner):
    """Rank tokens by the attention they receive in layer `layer` - 1, and drop the rest before layer `layer`.

    `rows='last'` is the method as its authors run it: one query, the last prompt token. `rows='all'` averages over all
    queries, which under a causal mask favours the top of the image; with `schedule='paper'` it stands for the FastV rows
    that papers cite from SparseVLM, whose true average is above their nominal budget (204.8 for 192).

    Source: Chen, Zhao, Liu, Bai, Lin, Zhou, Chang, "An Image is Worth 1/2 Tokens After Layer 2: Plug-and-Play Inference
    Acceleration for Large Vision-Language Models", ECCV 2024 (arXiv:2403.06764), section 4; github.com/pkunlp-icler/FastV.
    The paper's text averages over all other tokens, the authors' code uses the last one; this follows the code. Departures:
    the count is solved for the average over layers; tokens are chosen once, in the prefill; scores are float32.
    """

    source: ClassVar[str] = "Chen et al., github.com/pkunlp-icler/FastV"
    venue: ClassVar[str] = "ECCV"
    year: ClassVar[int | None] = 2024
    layer: int = 2
    """Layers that see all tokens."""
    rows: Literal["last", "all"] = "last"
    schedule: Literal["fair", "paper"] = "fair"

    def __post_init__(self) -> None:
        one_of("rows", self.rows, ("last", "all"))
        one_of("schedule", self.schedule, ("fair", "paper"))
        if self.layer < 1:
            raise BadOption("layer", f"option layer={self.layer}: FastV ranks by the layer before the cut; use 1 or more")
        if self.schedule == "paper" and (self.rows, self.layer) != ("all", 2):
            raise UserError("FastV's schedule 'paper' is that of rows 'all' and layer 2; set these, or use schedule 'fair'")

    @property
    def _kind(self) -> Literal["row", "rows_mean"]:
        return "row" if self.rows == "last" else "rows_mean"

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """Attention in the last layer that sees all tokens."""
        del shape
        return frozenset({Evidence(self._kind, layer=-1)})

    def cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        """Cut once, so that the average is the budget."""
        if self.schedule == "paper":
            return (Cut(self.layer, published(CITED, budget, n, shape, "FastV")),)
        return single_cut(self.layer, budget, n, shape, "FastV")

    def expected_average(self, budget: int, n: int, shape: ModelShape) -> float:
        """Average that a run must show: the budget, but for the authors' lists, which exceed their nominal budget."""
        if self.schedule == "fair":
            return float(budget)
        return average_in(self.cuts(budget, n, shape), n, shape.decoder_layers)

    def score(self, view: TokenView) -> Tensor:
        """Attention received, mean over heads."""
        return view.get(self._kind, layer=-1)
