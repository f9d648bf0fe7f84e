"""CDPruner: tokens that differ from each other, weighed by what the question asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from vtpbench.pruners.base import Evidence, ModelShape, Pruner, TokenView, rank
from vtpbench.pruners.budget import one_of
from vtpbench.pruners.evidence import joint_space
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

EXHAUSTED = 1e-6
"""By no more is the determinant multiplied where, but for float32's rounding, all that is left is explained by what was taken."""


@dataclass(frozen=True)
class CDPruner(Pruner):
    """Keep, tile by tile, the tokens that a greedy search for the largest determinant takes first; in image order.

    The matrix holds cosines of projected tokens, its rows and columns times the relevance of their tokens: the cosine with the
    question in the space that CLIP's two towers share, from 0 to 1 over all tiles of an image. Where further tokens add
    nothing to the determinant, the most relevant fill the budget.

    Options
    -------
    relevance_sign : -1, as the authors' code for CLIP, takes tokens that are *less* like the question for more relevant, by
        their observation of this tower and against the paper's words; 1 as the paper says

    Source: Zhang, Liu, Li, Lu, Zhang, Pan, She, Zhang, "Beyond Attention or Similarity: Maximizing Conditional Diversity
    for Token Pruning in MLLMs" (CDPruner), NeurIPS 2025 (arXiv:2506.10967), method section; github.com/Theia-4869/CDPruner.
    Departures: CLIP reads the prompt as it is asked, hint at the form of the answer included, and its first 77 tokens (the
    code strips the hint, and averages over pieces of 77); relevance is scaled within an image, never over a batch, and is 1
    where it is equal for all; the search stops where float32 knows nothing of what is left, which breaks the authors'; ties
    to the lower index. Qwen2.5-VL, whose tower has no text side, is not supported.
    """

    source: ClassVar[str] = "Zhang et al., github.com/Theia-4869/CDPruner"
    venue: ClassVar[str] = "NeurIPS"
    year: ClassVar[int | None] = 2025
    reads_question: ClassVar[bool] = True
    scope: ClassVar[Literal["image", "tile"]] = "tile"
    nested: ClassVar[bool] = True
    relevance_sign: int = -1

    def __post_init__(self) -> None:
        one_of("relevance_sign", self.relevance_sign, (-1, 1))

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """Ask for tokens as the language model gets them, and beside the question."""
        return frozenset({Evidence("projected"), joint_space(shape, "CDPruner")})

    def apply_order(self, view: TokenView) -> Tensor:
        """Weigh tokens over all tiles of an image, then order those of each."""
        assert view.asked is not None, "comes with `joint`"
        likeness = (
            torch.nn.functional.normalize(view.get("joint"), dim=-1)
            @ torch.nn.functional.normalize(view.asked, dim=-1)[..., None]
        ).squeeze(-1)
        tiles = view.by_tile()
        weights = self.relevance(likeness).reshape(tiles.features.shape[:2])
        return order_tokens(tiles.get("projected"), weights, tiles.cut.keep)

    def relevance(self, likeness: Tensor) -> Tensor:
        """Scale cosines of tokens and question, `(images, n)`."""
        signed = self.relevance_sign * likeness
        low, high = signed.aminmax(dim=1, keepdim=True)
        return torch.where(high > low, (signed - low + 1e-6) / (high - low), 1)


def order_tokens(rows: Tensor, weights: Tensor, k: int) -> Tensor:
    """Order the first `k` as the greedy search takes them, and where its order ends the heaviest of the rest; `(images, k)`."""
    order, gains = greedy_order(rows, weights, k)
    place = rank(weights).argsort(dim=1)
    ahead = torch.arange(-k, 0, device=order.device)
    return place.scatter(1, order, torch.where(gains > EXHAUSTED, ahead, place.gather(1, order))).argsort(dim=1)[:, :k]


def greedy_order(rows: Tensor, weights: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Order the first `k` of some vectors `(images, n, dim)` as taken, and tell by what each multiplies the determinant.

    The columns of an incremental Cholesky decomposition, one for each token kept: about ten kernels launched, for all images
    together and without ever waiting for a result. The order of a smaller `k` is a prefix of that of a larger one.
    """
    unit = torch.nn.functional.normalize(rows, dim=-1)
    kernel = weights[:, :, None] * (unit @ unit.mT) * weights[:, None]
    left = kernel.diagonal(dim1=1, dim2=2).clone()
    columns = kernel.new_zeros(len(rows), k, rows.shape[1])
    image = torch.arange(len(rows), device=rows.device)
    taken, gains = [], []
    for step in range(k):
        gain, token = left.max(dim=1)  # the lowest index on ties
        taken.append(token)
        gains.append(gain)
        own = kernel[image, token][:, None]
        if step:  # less what the tokens before explain
            own = torch.baddbmm(own, columns[image, :step, token][:, None], columns[:, :step], alpha=-1)
        column = own.squeeze(1) * gain.clamp(min=EXHAUSTED).rsqrt()[:, None]
        columns[:, step] = column
        left = left.addcmul(column, column, value=-1).scatter_(1, token[:, None], -torch.inf)  # once taken, never again
    return torch.stack(taken, dim=1), torch.stack(gains, dim=1)
