"""ToMe: merge the most similar tokens, a few in every layer of the vision tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from vtpbench.pruners.base import Cut, Evidence, ModelShape, Pruner, Selection, TokenView
from vtpbench.pruners.errors import Infeasible, Unsupported
from vtpbench.pruners.tome.merging import Rows, merge

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ToMe(Pruner):
    """Merge tokens whose keys are alike, between the attention and the MLP of each layer that the features pass.

    Every second token, a candidate, is compared with each of the others by the cosine of their keys, mean over heads. The
    best pairs merge into means weighted by the number of tokens in each row, and later layers attend to a row as to so
    many (proportional attention). What must go is shared equally among the layers, the larger shares first, though a layer can
    merge no more than every second token. A row stands at the first of its tokens. CLS is never merged.

    `stage: post` runs the same merging behind the tower, over its features with the keys of its last layer in which every
    token sees every other, as often as the budget needs: it saves nothing in the tower, and any tower can be used.
    `order: reference` leaves rows as merging leaves them, `raster` puts them into the order of the image.

    Source: Bolya, Fu, Dai, Zhang, Feichtenhofer, Hoffman, "Token Merging: Your ViT But Faster", ICLR 2023 (section 3); for a
    vision language model the paper gives no schedule, the equal shares are this project's. Departures: order of the image;
    float32; ties to the lower index.
    """

    source: ClassVar[str] = "Bolya et al."
    venue: ClassVar[str] = "ICLR"
    year: ClassVar[int | None] = 2023
    scope: ClassVar[Literal["image", "tile"]] = "tile"

    stage: Literal["encoder", "post"] = "encoder"
    order: Literal["raster", "reference"] = "raster"

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """Ask for the keys of every layer that merges."""
        if self.stage == "post":
            return frozenset({Evidence("keys", max(n for n in shape.full_attention if n <= shape.feature_layer))})
        if shape.whole_tower:
            raise Unsupported(f"{shape.whole_tower}; set stage: post to merge behind it")
        return frozenset(Evidence("keys", layer - shape.vision_layers) for layer in range(shape.feature_layer + 1))

    def tower_cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        """Share out what must go; raises `Infeasible` where halving in every layer leaves more than the budget."""
        if self.stage == "post" or budget >= n:
            return ()
        layers = shape.feature_layer + 1
        if n > budget << layers:
            least = -(-n >> layers)
            raise Infeasible(f"tome cannot merge {n} tokens into {budget} in {layers} layers; use at least {least} a tile")
        share, larger = divmod(n - budget, layers)
        even = (n - share * layer - min(layer, larger) for layer in range(1, layers + 1))
        counts = [min(count, budget << (layers - layer)) for layer, count in enumerate(even, start=1)]
        return tuple(Cut(layer - shape.vision_layers, count) for layer, count in enumerate(counts))

    def reduce(self, view: TokenView) -> Selection:
        """Merge inside the tower once, behind it as often as needed; there, put rows in order."""
        rows = self._merged(view)
        return Selection(rows.first % view.n, rows.features, size=rows.size)

    def segments(self, view: TokenView) -> Tensor:
        """Give each token the row that it was merged into."""
        return self._merged(view).group()

    def _merged(self, view: TokenView) -> Rows:
        rows = Rows.arriving(view)
        while (surplus := rows.n - view.cut.keep) > 0:
            rows = merge(rows, min(rows.n // 2, surplus), again=rows.n // 2 < surplus)
        return rows.in_order() if view.cut.at == 0 and self.order == "raster" else rows
