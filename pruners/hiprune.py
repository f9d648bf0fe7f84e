"""HiPrune: objects from a middle layer with their surroundings, the global summary from a deep one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from vtpbench.pruners.base import Cut, Evidence, ModelShape, Pruner, Selection, TokenView, rank, top
from vtpbench.pruners.budget import one_of
from vtpbench.pruners.errors import BadOption, Infeasible, Unsupported, share
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class HiPrune(Pruner):
    """Keep anchors, their four neighbours ("buffers") and registers, tile by tile; nothing is merged.

    Anchors are the round(alpha * budget / 5) tokens that receive most attention in the object layer; registers, the rest of
    the budget, those that receive most in the feature layer and are neither anchor nor buffer.

    Options
    -------
    alpha : share of the budget for anchors and buffers, 0-1
    object_layer : module index from 0; by default the first layer with full attention from 9/24 of the depth on: the
        authors' "layer 9" of CLIP-L (module 8) and "layer 16" of Qwen2.5-VL (module 15)
    neighbours : `flat` as the authors' code: ids a-1, a+1, a-width, a+width, clamped, so they wrap over row ends and the top
        row adds token 0; `grid` stays inside the picture
    compat : on towers without CLS, subtract 1 from the attention of anchors and buffers as the authors' code does, rather
        than excluding them. Attention sinks are then picked twice and fewer tokens than the budget stay

    Source: Liu, Du, Zhu, Lian, Li, Chen, "HiPrune: Training-Free Visual Token Pruning via Hierarchical Attention in
    Vision-Language Models", arXiv:2508.00553, version 1 (2025; a student abstract of it is in AAAI 2026), method section
    and code. Departures: float32 scores, ties to the lower index; a budget that the tiles cannot share equally is refused
    (the code rounds down); tiles are counted per image, not per call; an alpha whose anchors and buffers could exceed the
    budget is refused beforehand.
    """

    source: ClassVar[str] = "Liu et al., arXiv:2508.00553"
    venue: ClassVar[str] = "arXiv"
    year: ClassVar[int | None] = 2025
    scope: ClassVar[Literal["image", "tile"]] = "tile"
    alpha: float = 0.1
    object_layer: int | None = None
    neighbours: Literal["flat", "grid"] = "flat"
    compat: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise BadOption("alpha", f"option alpha={self.alpha}: use a number from 0 to 1")
        one_of("neighbours", self.neighbours, ("flat", "grid"))

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """Ask for the attention that tokens receive in the object layer and in the feature layer."""
        return frozenset(Evidence("received", layer) for layer in self._layers(shape))

    def _layers(self, shape: ModelShape) -> tuple[int, int]:
        """Find the object layer and the feature layer; raises `Unsupported` or `BadOption` where they have no full attention."""
        usable = [layer for layer in sorted(shape.full_attention) if layer <= shape.feature_layer]
        if shape.feature_layer not in usable:
            raise Unsupported(f"HiPrune needs full attention in the feature layer {shape.feature_layer} of {shape.family}")
        if self.object_layer is not None and self.object_layer not in usable:
            reason = f"HiPrune: object_layer {self.object_layer} is no layer with full attention; choose from {usable}"
            raise BadOption("object_layer", reason)
        start = shape.vision_layer(9 / 24) if self.object_layer is None else self.object_layer
        middle = next((layer for layer in usable if layer >= start), shape.feature_layer)
        return middle, shape.feature_layer

    def cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        """Cut before the language model; raises `Infeasible` where a tile's share cannot hold its anchors and buffers."""
        if shape.tiles is not None:  # else it is known image by image what a tile gets
            self.anchors(share(budget, shape.tiles))
        return super().cuts(budget, n, shape)

    def anchors(self, budget: int) -> int:
        """Count the anchors of a tile; they and their neighbours must not exceed its budget, whatever the image."""
        k = round(budget * self.alpha / 5)
        if 5 * k > budget:  # the image's own count would cost a host sync
            raise Infeasible(f"HiPrune: {k} anchors and their neighbours can exceed a budget of {budget}; lower alpha")
        return k

    def score(self, view: TokenView) -> Tensor:
        """Put anchors and buffers above all others, which are ranked by deep attention."""
        return self._deep(view).masked_fill(self.marked(view), torch.inf)

    def reduce(self, view: TokenView) -> Selection:
        """Choose; with `compat`, registers may repeat anchors and buffers, and the count falls short of the budget."""
        if not self.compat or view.cls is not None:  # with CLS the attention is a mean, below 1: subtracting 1 excludes
            return super().reduce(view)
        marked, attention = self.marked(view), self._deep(view)
        registers = view.cut.keep - marked.sum(dim=1, keepdim=True)
        # There the authors sum over queries: a scale on which the mean over tokens is 1.
        place = rank(attention / attention.mean(dim=1, keepdim=True) - marked.float()).argsort(dim=1)
        kept = marked | (place < registers)
        index = top(kept, view.cut.keep)
        return Selection(index, valid=kept.gather(1, index))

    def marked(self, view: TokenView) -> Tensor:
        """Mark anchors and buffers, `(images, n)` bool."""
        k = self.anchors(view.cut.keep)
        shallow = view.get("received", self._layers(view.shape)[0])
        width = view.grid.width
        anchor = rank(shallow)[:, :k, None]
        near = torch.cat([anchor, anchor - 1, anchor + 1, anchor - width, anchor + width], dim=2).clamp(0, view.n - 1)
        if self.neighbours == "grid":
            rows, columns = near // width - anchor // width, near % width - anchor % width
            near = torch.where(rows.abs() + columns.abs() <= 1, near, anchor)
        return torch.zeros_like(shallow, dtype=torch.bool).scatter(1, near.flatten(1), True)

    @staticmethod
    def _deep(view: TokenView) -> Tensor:
        """Attention received in the feature layer."""
        return view.get("received", view.shape.feature_layer)
