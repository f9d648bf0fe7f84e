"""DART: after a few layers, keep the tokens that are least like some pivots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from vtpbench.pruners.base import Cut, Evidence, ModelShape, Pruner, TokenView, average_in, rank, take, top
from vtpbench.pruners.budget import one_of, require_inside, single_cut
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DART(Pruner):
    """Choose pivots by their keys in layer `layer` - 1, and before layer `layer` keep the tokens that repeat them least.

    Pivots are the `image_pivots` vision tokens and the `text_pivots` tokens of the text after the image whose keys have the
    largest L1 norm. Image pivots stay. Then one pivot after the other takes, of what is left, the tokens whose hidden states,
    through the model's final norm, have the smallest cosine to its own: as many for each, the first take one more where that
    does not divide. Image pivots come first, then text pivots, each by descending norm.

    `schedule='paper'` keeps what the authors' code keeps for a nominal budget of M: `image_pivots` and, for each pivot, M /
    number of pivots, rounded down. It counts tokens behind the cut, so that "128" of 576 means 159.75 entering a layer.

    Source: Wen, Gao, Wang, Zhang, Zhang, Li, He, Zhang, "Stop Looking for 'Important Tokens' in Multimodal Language Models:
    Duplication Matters More", EMNLP 2025 (arXiv:2502.11494), method section; github.com/ZichenWen1/DART. The paper
    describes a threshold of duplication, the authors' code takes a count from each pivot; this follows the code.
    Departures: the order of pivots (in the code that of a Python set of positions, which depends on the length of the
    prompt); an exact count; fewer text pivots where the text is shorter; each image of a prompt has its own budget and
    image pivots, and no image is taken for text; scores are float32, ties to the lower index.
    """

    source: ClassVar[str] = "Wen et al., github.com/ZichenWen1/DART"
    venue: ClassVar[str] = "EMNLP"
    year: ClassVar[int | None] = 2025
    layer: int = 2
    """Layers that see all tokens."""
    image_pivots: int = 4
    text_pivots: int = 4
    schedule: Literal["fair", "paper"] = "fair"

    def __post_init__(self) -> None:
        one_of("schedule", self.schedule, ("fair", "paper"))
        if self.layer < 1:
            raise UserError(f"option layer={self.layer}: DART takes keys of the layer before the cut; use 1 or more")
        if self.image_pivots < 1 or self.text_pivots < 0:
            raise UserError("options image_pivots and text_pivots: use at least 1 and 0")

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """Ask for keys of the last layer that sees all tokens, and for what it gives through the final norm."""
        del shape
        return frozenset({Evidence("layer_keys", layer=-1), Evidence("normed")})

    def cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        """Cut once, so that the average is the budget; or keep what the authors do."""
        if self.schedule == "fair":
            return single_cut(self.layer, budget, n, shape, "DART")
        require_inside(self.layer, shape, "DART")
        pivots = self.image_pivots + self.text_pivots
        return (Cut(self.layer, min(n, self.image_pivots + budget // pivots * pivots)),)

    def expected_average(self, budget: int, n: int, shape: ModelShape) -> float:
        """Average that a run must show: the budget, but for the authors' counts, which exceed it."""
        if self.schedule == "fair":
            return float(budget)
        return average_in(self.cuts(budget, n, shape), n, shape.decoder_layers)

    def select(self, view: TokenView) -> Tensor:
        """Let every pivot take its share: each needs to know what those before it took, so the loop is the algorithm's own."""
        assert view.text is not None
        norm = view.get("layer_keys").abs().sum(dim=-1)
        first = rank(norm)[:, : min(self.image_pivots, view.cut.keep)]
        text_norm = view.text.get("layer_keys").abs().sum(dim=-1).masked_fill(~view.text.real, -torch.inf)
        words = rank(text_norm)[:, : self.text_pivots]
        states = view.get("normed")
        pivots = torch.cat([take(states, first), take(view.text.get("normed"), words)], dim=1)
        likeness = torch.nn.functional.normalize(pivots, dim=-1) @ torch.nn.functional.normalize(states, dim=-1).mT
        real = torch.cat([torch.ones_like(first, dtype=torch.bool), view.text.real.gather(1, words)], dim=1)
        taken = torch.zeros_like(norm, dtype=torch.bool).scatter(1, first, True)
        place = torch.arange(view.n, device=norm.device)
        for pivot, share in enumerate(shares(view.cut.keep - first.shape[1], real).unbind(dim=1)):
            order = rank(-likeness[:, pivot].masked_fill(taken, torch.inf))
            taken = taken.scatter(1, order, taken.gather(1, order) | (place < share[:, None]))
        return top(taken, view.cut.keep)


def shares(count: int, real: Tensor) -> Tensor:
    """Divide a count among the pivots that are `real`, `(images, pivots)`; the first take one more where it does not divide."""
    number = real.cumsum(dim=1)
    pivots = number[:, -1:]
    return torch.where(real, count // pivots + (number <= count % pivots), 0)
