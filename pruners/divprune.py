"""DivPrune: the subset of tokens that lie farthest apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vtpbench.pruners.base import Evidence, ModelShape, Pruner, TokenView
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DivPrune(Pruner):
    """Keep the tokens that a greedy search for the largest minimal cosine distance takes first; in image order.

    The first is the token whose nearest neighbour is farthest, each further one the token farthest from all taken so far.
    Distances are those of projected tokens, over all tiles of an image together.

    Source: Alvar, Singh, Akbari, Zhang, "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models",
    CVPR 2025, greedy solution of the max-min diversity problem. Departures: a token is never taken twice (the authors' code
    does so among exact duplicates); a count is kept rather than a ratio; row separators of LLaVA-NeXT are no candidates;
    float32, ties to the lower index.
    """

    source: ClassVar[str] = "Alvar et al."
    venue: ClassVar[str] = "CVPR"
    year: ClassVar[int | None] = 2025
    nested: ClassVar[bool] = True

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """Ask for the tokens as the language model gets them."""
        del shape
        return frozenset({Evidence("projected")})

    def selection_order(self, view: TokenView) -> Tensor:
        """Order the tokens as taken, `(images, keep)`; the order of a smaller budget is a prefix of it.

        The steps are the algorithm's own: each needs the one before, so the host launches three kernels for each token kept
        (farthest, its row of distances, minimum), for all images together and without ever waiting for a result.
        """
        rows = torch.nn.functional.normalize(view.get("projected"), dim=-1)
        distance = 1 - rows @ rows.mT
        distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)  # a token is not its own nearest neighbour
        gap = distance.amin(dim=1)
        distance.diagonal(dim1=1, dim2=2).fill_(-torch.inf)  # once taken, it is never the farthest again
        image = torch.arange(len(rows), device=rows.device)
        taken = [gap.argmax(dim=1)]
        gap = distance[image, taken[0]]
        for _ in range(1, view.cut.keep):
            taken.append(gap.argmax(dim=1))  # the lowest index on ties
            gap = torch.minimum(gap, distance[image, taken[-1]])
        return torch.stack(taken, dim=1)
