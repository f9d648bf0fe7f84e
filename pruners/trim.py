"""TRIM: the tokens that CLIP's text tower singles out, and the mean of all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from vtpbench.pruners.base import Evidence, ModelShape, Pruner, Selection, TokenView, rank, take, top
from vtpbench.pruners.budget import one_of
from vtpbench.pruners.evidence import joint_space
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.ranking import outliers
from vtpbench.pruners.tiles import last_rows_behind

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TRIM(Pruner):
    """Keep, tile by tile, the tokens that stand out against the question, and the mean of all others behind them.

    Tokens are compared with the question in the space that CLIP's two towers share. The mean is a token of the budget, and
    stands at the best of those that it is the mean of.

    Options
    -------
    similarity : `dot` as the authors' code, where the norms of tokens count; `cosine` as the paper says
    relevance_sign : -1 as the authors' code, which keeps the tokens that are *least* like the question; 1 the most alike
    count : `budget`, or `outliers` of the softmax over a tile, more than the third quartile and 1.5 interquartile ranges, with
        which the method was published, or the budget where that is fewer

    Source: Song, Wang, Chen, Wang, Guan, Wang, "Less is More: A Simple yet Effective Token Reduction Method for Efficient
    Multi-modal LLMs" (TRIM), COLING 2025 (arXiv:2409.10994), method section; github.com/FreedomIntelligence/TRIM.
    Departures: an exact count, the mean included; quartiles of a tile, not of the batch; each tile of LLaVA-NeXT keeps its
    own (the code leaves the base tile's alone); a budget of all tokens has no mean; float32, ties to the lower index.
    Qwen2.5-VL, whose tower has no text side, is not supported.
    """

    source: ClassVar[str] = "Song et al., github.com/FreedomIntelligence/TRIM"
    venue: ClassVar[str] = "COLING"
    year: ClassVar[int | None] = 2025
    reads_question: ClassVar[bool] = True
    scope: ClassVar[Literal["image", "tile"]] = "tile"
    similarity: Literal["dot", "cosine"] = "dot"
    relevance_sign: int = -1
    count: Literal["budget", "outliers"] = "budget"

    def __post_init__(self) -> None:
        one_of("similarity", self.similarity, ("dot", "cosine"))
        one_of("count", self.count, ("budget", "outliers"))
        one_of("relevance_sign", self.relevance_sign, (-1, 1))

    @property
    def adaptive(self) -> bool:
        """Whether the count adapts to the image."""
        return self.count == "outliers"

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """Ask for tokens beside the question."""
        return frozenset({joint_space(shape, "TRIM")})

    def score(self, view: TokenView) -> Tensor:
        """Compare tokens with the question, `(images, n)`."""
        assert view.asked is not None, "comes with `joint`"
        tokens, asked = view.get("joint"), view.asked
        if self.similarity == "cosine":
            tokens, asked = torch.nn.functional.normalize(tokens, dim=-1), torch.nn.functional.normalize(asked, dim=-1)
        return self.relevance_sign * (tokens @ asked[..., None]).squeeze(-1)

    def reduce(self, view: TokenView) -> Selection:
        """Choose within one tile, and average the rest."""
        keep, score = view.cut.keep, self.score(view)
        if keep >= view.n:
            return Selection(torch.arange(view.n, device=score.device).expand(len(score), -1))
        place = rank(score).argsort(dim=1)
        chosen = place < keep - 1
        if self.adaptive:
            chosen = chosen & (place < outliers(score.softmax(dim=1)))
        index = top(chosen, keep - 1)
        rest = (~chosen).float()
        mean = (rest / rest.sum(dim=1, keepdim=True))[:, None] @ view.features
        last = score.masked_fill(chosen, -torch.inf).argmax(dim=1, keepdim=True)
        valid = torch.cat([chosen.gather(1, index), torch.ones_like(last, dtype=torch.bool)], dim=1) if self.adaptive else None
        return Selection(torch.cat([index, last], dim=1), torch.cat([take(view.features, index), mean], dim=1), valid)

    def join(self, tiles: Selection, view: TokenView) -> Selection:
        """Put the base tile first, then the chosen tokens of all other tiles, then their means."""
        return last_rows_behind(super().join(tiles, view), view.grid.tiles)
