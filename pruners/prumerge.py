"""PruMerge: the most attended tokens, each with what its neighbours add, and one token for all that is dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from vtpbench.pruners.base import Cut, Evidence, ModelShape, Pruner, Selection, TokenView, rank, take, top
from vtpbench.pruners.budget import one_of
from vtpbench.pruners.errors import Unsupported, UserError
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.ranking import outliers
from vtpbench.pruners.tiles import last_rows_behind

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PruMerge(Pruner):
    """Keep, tile by tile, the most attended tokens; add to each its neighbours, and put one token for all others behind them.

    Attention is that of CLS in the layer behind the features, all heads taken as one. To the features of each token that
    stays those of its `neighbours` with the most similar keys (cosine, all heads) are added, kept or not, each times its
    attention; nothing is divided. The last token of a tile is the sum of all tokens that do not stay, each times its attention.

    `count: budget` keeps what the budget asks for, the last token included; `outliers` as many as have more than the third
    quartile and 1.5 interquartile ranges, which the method was published with, or the budget where that is fewer.

    Towers without CLS (not in the paper): attention that tokens receive, and keys, of the layer that makes the features.

    Source: Shang, Cai, Xu, Lee, Yan, "LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal Models", ICCV
    2025 (arXiv:2403.15388), method section; github.com/42Shawn/LLaVA-PruMerge. The paper averages with weights and takes
    the penultimate layer; this follows the code. Departures: an exact count; order of the image instead of attention
    (`order: reference`); the last token stands at the most attended of what it sums; quartiles of each tile; a budget of
    all tokens merges none; float32, ties to the lower index.
    """

    source: ClassVar[str] = "Shang et al., github.com/42Shawn/LLaVA-PruMerge"
    venue: ClassVar[str] = "ICCV"
    year: ClassVar[int | None] = 2025
    scope: ClassVar[Literal["image", "tile"]] = "tile"
    neighbours: int = 32
    count: Literal["budget", "outliers"] = "budget"
    order: Literal["raster", "reference"] = "raster"

    def __post_init__(self) -> None:
        one_of("count", self.count, ("budget", "outliers"))
        one_of("order", self.order, ("raster", "reference"))
        if self.neighbours < 0:
            raise UserError(f"option neighbours={self.neighbours}: use 0 or more")

    @property
    def adaptive(self) -> bool:
        """Whether the count adapts to the image."""
        return self.count == "outliers"

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """Ask for attention and keys of the layer behind the features, or of theirs where there is none or no CLS."""
        layer = min(shape.feature_layer + shape.has_cls, shape.vision_layers - 1)
        if layer not in shape.full_attention:
            raise Unsupported(f"PruMerge needs full attention in vision layer {layer} of {shape.family}")
        return frozenset({Evidence("cls_one_head" if shape.has_cls else "received", layer), Evidence("keys_all_heads", layer)})

    def cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        """Cut before the language model."""
        if self.order == "reference" and (shape.tiles or 1) > 1:
            raise Unsupported("PruMerge has an order of its authors for one tile only; use order 'raster'")
        return super().cuts(budget, n, shape)

    def reduce(self, view: TokenView) -> Selection:
        """Choose the centres of one tile, add their neighbours, and sum up the rest."""
        keep = view.cut.keep
        if keep >= view.n:
            return Selection(torch.arange(view.n, device=view.features.device).expand(len(view.features), -1))
        attention = view.get("cls_one_head" if view.shape.has_cls else "received")
        chosen, turn = self._centres(attention, keep - 1)
        index = top(chosen, keep - 1)
        if self.order == "reference":
            index = index.gather(1, turn.gather(1, index).argsort(dim=1))
        left = attention.masked_fill(chosen, 0)
        weights = torch.cat([self._weights(view.get("keys_all_heads"), attention, index), left[:, None]], dim=1)
        last = attention.masked_fill(chosen, -torch.inf).argmax(dim=1, keepdim=True)
        valid = torch.cat([chosen.gather(1, index), torch.ones_like(last, dtype=torch.bool)], dim=1) if self.adaptive else None
        return Selection(torch.cat([index, last], dim=1), weights @ view.features, valid)

    def _weights(self, keys: Tensor, attention: Tensor, index: Tensor) -> Tensor:
        """Say how much of each token goes into each centre, `(images, k, n)`."""
        unit = torch.nn.functional.normalize(keys, dim=-1)
        likeness = (take(unit, index) @ unit.mT).scatter(2, index[..., None], -torch.inf)
        near = rank(likeness)[..., : min(self.neighbours, keys.shape[1] - 1)]
        weights = torch.zeros_like(likeness).scatter(2, near, attention[:, None].expand_as(likeness).gather(2, near))
        return weights.scatter(2, index[..., None], 1)

    def _centres(self, attention: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Choose up to `k` centres, and number tokens in the authors' order; `(images, n)` both."""
        place = rank(attention).argsort(dim=1)
        chosen = place < k
        return (chosen & (place < outliers(attention)) if self.adaptive else chosen), place

    def join(self, tiles: Selection, view: TokenView) -> Selection:
        """Put the base tile first, then the centres of all other tiles, then their last tokens."""
        return last_rows_behind(super().join(tiles, view), view.grid.tiles)
