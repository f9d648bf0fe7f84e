"""PyramidDrop: drop tokens in three steps, each time by the last prompt token's attention in the layer to come."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import floor
from typing import TYPE_CHECKING, ClassVar, Literal

from vtpbench.pruners.base import Cut, Evidence, ModelShape, Pruner, TokenView, average_in
from vtpbench.pruners.budget import boundaries, bracket, one_of, refuse_renumbering, require_reachable, within
from vtpbench.pruners.errors import Infeasible

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PyramidDrop(Pruner):
    """Keep a geometric series of counts, `ratio`, `ratio`^2 and `ratio`^3 of the original tokens.

    `schedule='fair'` cuts before layers 2, 8 and 16 of 32 and solves the ratio for the budget; `'paper'` halves before
    layers 8, 16 and 24, an average of 270 of 576, and is infeasible for any other budget.

    Source: Xing, Huang, Dong, Lu, Zhang, Zang, Cao, He, Wang, Wu, Lin, "PyramidDrop: Accelerating Your Large
    Vision-Language Models via Pyramid Visual Redundancy Reduction", CVPR 2025 (arXiv:2410.17247), section 3;
    github.com/Cooperx521/PyramidDrop (MIT). The lists behind the paper's rows at 192, 128 and 64 are not published; layers
    2, 8, 16 with a solved ratio follow the authors' advice in its issue 29. Departures: boundaries at the same fraction of
    other depths; at least one token stays; grouped key heads are repeated, where the original fails; scores are float32.
    """

    source: ClassVar[str] = "Xing et al., github.com/Cooperx521/PyramidDrop"
    venue: ClassVar[str] = "CVPR"
    year: ClassVar[int | None] = 2025
    schedule: Literal["fair", "paper"] = "fair"
    positions: Literal["reference", "keep"] = "reference"
    """`reference` renumbers after each cut, as the authors do."""

    def __post_init__(self) -> None:
        one_of("schedule", self.schedule, ("fair", "paper"))
        one_of("positions", self.positions, ("reference", "keep"))

    @property
    def position_rule(self) -> Literal["keep", "renumber"]:
        """What a cut does to positions."""
        return "renumber" if self.positions == "reference" else "keep"

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """Last prompt token's attention by the projections of the layer about to run."""
        if self.position_rule == "renumber":
            refuse_renumbering(shape, "PyramidDrop")
        return frozenset({Evidence("row", layer=0)})

    def cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        """Solve the ratio, or check that the paper's gives the budget."""
        if self.schedule == "paper":
            return self._paper(budget, n, shape)
        at = boundaries((2, 8, 16), shape)
        name = f"PyramidDrop with cuts at layers {', '.join(map(str, at))}"
        require_reachable(budget, geometric(at, 0.0, n), n, shape, name)
        return geometric(at, solve_ratio(at, budget / n, shape.decoder_layers), n)

    def _paper(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        cuts = geometric(boundaries((8, 16, 24), shape), 0.5, n)
        average = average_in(cuts, n, shape.decoder_layers)
        if not within(average, budget):
            given = f"PyramidDrop's published list gives {average:.4g} of {n} tokens on average"
            raise Infeasible(f"{given}, not {budget}; ask for that or use schedule 'fair'")
        return cuts

    def score(self, view: TokenView) -> Tensor:
        """Attention received, mean over heads."""
        return view.get("row", layer=0)


def geometric(at: tuple[int, ...], ratio: float, n: int) -> tuple[Cut, ...]:
    """Cuts that keep floor(n * ratio^i), at least 1, from boundary i = 1, 2 ... on; always of the original count."""
    return tuple(Cut(layer, max(1, floor(n * ratio**i))) for i, layer in enumerate(at, start=1))


def solve_ratio(at: tuple[int, ...], share: float, layers: int) -> float:
    """Ratio whose real-valued counts average `share` (0-1) of the tokens; the floors then cost less than one token."""
    edges = (0, *at, layers)
    spans = [(end - start) / layers for start, end in pairwise(edges)]
    return bracket(lambda ratio: sum(span * ratio**i for i, span in enumerate(spans)), share, high=1.0)[1]
