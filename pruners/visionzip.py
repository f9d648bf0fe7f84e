"""VisionZip: the tokens that attention points to, and the rest folded into a few contextual tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from vtpbench.pruners.base import Cut, Evidence, ModelShape, Pruner, Selection, TokenView, rank, take
from vtpbench.pruners.budget import one_of
from vtpbench.pruners.errors import BadOption, Infeasible, share
from vtpbench.pruners.evidence import feature_attention
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.tiles import kind_by_kind

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class VisionZip(Pruner):
    """Keep D dominant tokens and merge all others into R contextual ones, tile by tile; D + R = budget of the tile.

    Dominant are CLS itself and the patches that CLS attends to most. Of the patches that remain, R evenly spaced ones are
    targets; each other one joins the target with the most similar key (cosine), and a contextual token is its target's
    feature plus the mean of those that joined (the paper says average, the authors' code adds).

    R = budget / 6.4, rounded, which gives every published split: 192 = 162 + 30, 128 = 108 + 20, 64 = 54 + 10, and
    32 = 27 + 5 for a tile of LLaVA-NeXT. At least one token is merged, unless the budget is 1.

    Towers without CLS (not in the paper): dominant are the tokens that receive most attention in the feature layer, and
    contextual tokens stand at the places of their targets, so that the order is that of the image.

    `contextual` sets R for each tile; 0 merges nothing. `order` puts the contextual tokens of LLaVA-NeXT's tiles into the order
    of the joined grid, each at the place of its target (`raster`), or leaves them tile by tile, as the authors do (`reference`).

    Source: Yang, Chen, Tian, Wang, Li, Yu, Jia, "VisionZip: Longer is Better but Not Necessary in Vision Language Models",
    CVPR 2025, dominant token selection and contextual tokens merging. Departures: float32 scores, ties to the lower index;
    R = 0 selects (the authors' code divides by zero); `order: raster`.
    """

    source: ClassVar[str] = "Yang et al."
    venue: ClassVar[str] = "CVPR"
    year: ClassVar[int | None] = 2025
    scope: ClassVar[Literal["image", "tile"]] = "tile"
    contextual: int | None = None
    order: Literal["raster", "reference"] = "raster"

    def __post_init__(self) -> None:
        one_of("order", self.order, ("raster", "reference"))
        if self.contextual is not None and self.contextual < 0:
            raise BadOption("contextual", f"option contextual={self.contextual}: use 0 or more")

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """Ask for the attention and the keys of the layer that makes the features."""
        return frozenset({feature_attention(shape, "VisionZip"), Evidence("keys", shape.feature_layer)})

    def cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        """Cut before the language model; raises `Infeasible` where a tile's share leaves no dominant token."""
        if shape.tiles is not None:  # else it is known image by image what a tile gets
            self.split(share(budget, shape.tiles))
        return super().cuts(budget, n, shape)

    def split(self, budget: int) -> tuple[int, int]:
        """Share a tile's budget: tokens that stay as they are (CLS among them), tokens that are merged."""
        merged = min(max(1, round(budget / 6.4)), budget - 1) if self.contextual is None else self.contextual
        if merged >= budget:
            raise Infeasible(f"VisionZip: {merged} contextual tokens leave none of {budget}; lower `contextual`")
        return budget - merged, merged

    def reduce(self, view: TokenView) -> Selection:
        """Choose the dominant tokens of one tile and merge the others."""
        dominant, contextual = self.split(view.cut.keep)
        order = rank(view.get("received" if view.cls is None else "cls"))
        patches = dominant if view.cls is None else dominant - 1
        if patches + contextual > view.n:
            raise Infeasible(f"VisionZip: {patches} dominant and {contextual} contextual tokens of {view.n}; lower the budget")
        chosen, rest = order[:, :patches].sort(dim=1).values, order[:, patches:].sort(dim=1).values
        targets, merged = fold(view.features, view.get("keys"), rest, contextual)
        index = torch.cat([chosen, targets], dim=1)
        features = torch.cat([take(view.features, chosen), merged], dim=1)
        if view.cls is None:
            raster = index.argsort(dim=1)
            return Selection(index.gather(1, raster), take(features, raster))
        return Selection(torch.cat([index.new_full((len(index), 1), -1), index], dim=1), torch.cat([view.cls, features], dim=1))

    def join(self, tiles: Selection, view: TokenView) -> Selection:
        """Put the base tile first, then of all other tiles the patches, the CLS tokens, the contextual tokens."""
        joined = super().join(tiles, view)
        if view.cls is None:
            return joined
        dominant, _ = self.split(tiles.k)
        if self.order == "reference":  # rows without a place are not put in order
            is_dominant = torch.arange(joined.k, device=joined.index.device) % tiles.k < dominant
            joined = replace(joined, index=torch.where(is_dominant, joined.index, -1))
        return kind_by_kind(joined, view.grid.tiles, (slice(1, dominant), slice(1), slice(dominant, None)))


def fold(features: Tensor, keys: Tensor, rest: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Fold the tokens `rest`, (images, m), into `count` of them: ids of the targets and the merged rows."""
    if count == 0:
        return rest[:, :0], features[:, :0]
    m = rest.shape[1]
    step = m // count
    place = torch.arange(m, device=rest.device)
    is_target = (place % step == 0) & (place < step * count)
    unit, rows = torch.nn.functional.normalize(take(keys, rest), dim=-1), take(features, rest)
    nearest = (unit @ unit[:, ::step][:, :count].mT).argmax(dim=-1)  # (images, m), the lowest on ties
    joins = (nearest[..., None] == place[:count]) & ~is_target[:, None]
    mean = joins.float().mT @ rows / joins.sum(dim=1).clamp(min=1)[..., None]
    return rest[:, ::step][:, :count], rows[:, ::step][:, :count] + mean
