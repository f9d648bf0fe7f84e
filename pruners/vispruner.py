"""VisPruner: half of the tokens by the attention on them, half by how little they repeat each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from vtpbench.pruners.base import Evidence, ModelShape, Pruner, TokenView, rank
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.evidence import feature_attention
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class VisPruner(Pruner):
    """Keep, tile by tile, the most attended tokens, and of the rest those that are left when near duplicates have gone.

    A share `important_ratio` of the budget, rounded down, goes to the tokens with most attention from CLS. The rest of the
    tokens, most attended first, is split into every second one: in each round the `step` tokens of the first half that are
    most like one of the second half (cosine of their features) leave, until as many are left as are due. What stays of the
    first half, the least alike last, and then the second half make up the next round's list.

    Towers without CLS (the authors' advice, without code): the attention that tokens receive from all others.

    Source: Zhang, Cheng, Lu, Zhang, Zhuo, Cao, Guo, She, Zhang, "Beyond Text-Visual Attention: Exploiting Visual Cues for
    Effective Token Pruning in VLMs", ICCV 2025, method section; github.com/Theia-4869/VisPruner. Departures: a list of odd
    length is split with the odd token in the first half (the authors' code fails), and no more leave than it has; the ratio
    is the same for every budget and benchmark (the authors name 0.75 for 64 tokens on MME); float32, ties to the lower index
    or the earlier in the list.
    """

    source: ClassVar[str] = "Zhang et al., github.com/Theia-4869/VisPruner"
    venue: ClassVar[str] = "ICCV"
    year: ClassVar[int | None] = 2025
    scope: ClassVar[Literal["image", "tile"]] = "tile"
    important_ratio: float = 0.5
    """Share of the budget that goes by attention alone, 0-1; 1 is FasterVLM."""
    step: int = 8
    """Tokens that leave in a round."""

    def __post_init__(self) -> None:
        if not 0 <= self.important_ratio <= 1:
            raise UserError(f"option important_ratio={self.important_ratio}: use 0 to 1")
        if self.step < 1:
            raise UserError(f"option step={self.step}: use 1 or more")

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """Ask for the attention on each token."""
        return frozenset({feature_attention(shape, "VisPruner")})

    def select(self, view: TokenView) -> Tensor:
        """Take the important tokens, and thin out the others."""
        important = int(view.cut.keep * self.important_ratio)
        order = rank(view.evidence[feature_attention(view.shape, "VisPruner")])
        diverse = self._thinned(view.features, order[:, important:], view.cut.keep - important)
        return torch.cat([order[:, :important], diverse], dim=1).sort(dim=1).values

    def _thinned(self, features: Tensor, left: Tensor, due: int) -> Tensor:
        """Let the most repetitive of the tokens `left`, `(images, m)`, go until `due` of them stay.

        Each round needs the one before: five operations of the device for `step` tokens that leave, for all images together.
        """
        if due == 0:
            return left[:, :0]
        unit = torch.nn.functional.normalize(features, dim=-1)
        likeness = unit @ unit.mT
        image = torch.arange(len(left), device=left.device)[:, None, None]
        while (surplus := left.shape[1] - due) > 0:
            first, second = left[:, ::2], left[:, 1::2]
            repeats = likeness[image, first[:, :, None], second[:, None]].amax(dim=-1)
            order = rank(repeats)[:, min(self.step, surplus, first.shape[1]) :]
            left = torch.cat([first.gather(1, order), second], dim=1)
        return left
