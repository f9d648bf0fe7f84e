"""FasterVLM: the tokens that the vision tower's CLS token attends to most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from vtpbench.pruners.base import Evidence, ModelShape, Pruner, TokenView
from vtpbench.pruners.evidence import feature_attention

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FasterVLM(Pruner):
    """Keep, tile by tile, the tokens with most attention from CLS in the layer that makes the features; in image order.

    Towers without CLS (the authors' advice, without code): the attention that tokens receive from all others.

    Source: Zhang, Cheng, Lu, Zhuo, Wang, Cao, Guo, She, Zhang, "[CLS] Attention is All You Need for Training-Free Visual
    Token Pruning: Make VLM Inference Faster", arXiv:2412.01818 (2024), version 1, method section;
    github.com/Theia-4869/FasterVLM. Departures: a count is kept rather than a rate; float32, ties to the lower index.
    """

    source: ClassVar[str] = "Zhang et al., arXiv:2412.01818, github.com/Theia-4869/FasterVLM"
    venue: ClassVar[str] = "arXiv"
    year: ClassVar[int | None] = 2024
    scope: ClassVar[Literal["image", "tile"]] = "tile"
    nested: ClassVar[bool] = True

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """Ask for the attention on each token."""
        return frozenset({feature_attention(shape, "FasterVLM")})

    def score(self, view: TokenView) -> Tensor:
        """Give the attention on each token, `(images, n)`."""
        return view.evidence[feature_attention(view.shape, "FasterVLM")]
