"""HiRED: a budget for each tile of a high-resolution image, by how much of the picture's attention falls on its part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal

from vtpbench.pruners.base import Evidence, Grid, ModelShape, Pruner, TokenView, rank, top
from vtpbench.pruners.budget import one_of
from vtpbench.pruners.errors import Unsupported, UserError
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.quotas import best_of_each, share_out
from vtpbench.pruners.transfer import copy_to_device

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class HiRED(Pruner):
    """Give the base tile `alpha` of the budget, share the rest among the tiles, and keep what CLS attends to most in each.

    A tile's share goes by the tokens of the base tile that lie on the part that the tile enlarges and are among the
    1 - `alpha` of them to which CLS attends most in the first vision layer. Tokens are chosen by the attention of the layer that
    makes the features. An image of one tile (LLaVA-1.5) keeps the tokens with most of it: there HiRED is FasterVLM.

    Options
    -------
    regions : `rectangles`, the part of the base tile that each tile shows, in quarters, thirds ...; `bands` as the authors'
        code, which takes as many consecutive tokens, so that the parts are stripes of rows whatever the layout

    Source: Arif, Yoon, Nikolopoulos, Vandierendonck, John, Ji, "HiRED: Attention-Guided Token Dropping for Efficient
    Inference of High-Resolution Vision-Language Models", AAAI 2025 (arXiv:2408.10945), method section;
    github.com/hasanar1f/HiRED (MIT). Departures: rectangles; what rounding down leaves goes to the largest remainders, and
    what a tile cannot take to the others, where the authors lose both; one tile is pruned, too; padding stays only where
    nothing else is left; ties to the lower index; float32. Without CLS, or tiles, there is nothing of it to run: Qwen2.5-VL
    is not supported.
    """

    source: ClassVar[str] = "Arif et al., arXiv:2408.10945"
    venue: ClassVar[str] = "AAAI"
    year: ClassVar[int | None] = 2025
    alpha: float = 0.5
    regions: Literal["rectangles", "bands"] = "rectangles"

    def __post_init__(self) -> None:
        one_of("regions", self.regions, ("rectangles", "bands"))
        if not 0 < self.alpha < 1:
            raise UserError(f"option alpha={self.alpha}: use a share between 0 and 1, for the base tile")

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """Ask for the attention of CLS in the first layer and in the one that makes the features."""
        if not shape.has_cls:
            raise Unsupported(f"HiRED goes by the attention of a CLS token, and {shape.family} uses none; use holov or visionzip")
        return frozenset({Evidence("cls", 0), Evidence("cls", shape.feature_layer)})

    def select(self, view: TokenView) -> Tensor:
        """Keep each tile's share of what CLS attends to most."""
        tiles, attention = view.grid.tiles, view.get("cls", view.shape.feature_layer)
        if tiles == 1:
            return top(attention, view.cut.keep)
        shown, most, region = layout(view.grid, self.regions, attention.device)
        quota = self.quotas(view.get("cls", 0)[:, : view.n // tiles], view.cut.keep, view.grid, most, region)
        seen = attention.masked_fill(~shown, -1).unflatten(1, (tiles, -1))
        return top(best_of_each(seen, quota).flatten(1).float(), view.cut.keep)

    def quotas(self, first: Tensor, keep: int, grid: Grid, most: Tensor, region: Tensor) -> Tensor:
        """Count what each tile keeps, `(images, tiles)`, by the base tile's attention in the first layer, `(images, n)`."""
        n, others = first.shape[1], len(grid.sequence) - first.shape[1]
        base = min(n, max(int(keep * self.alpha), keep - others))
        salient = region[rank(first)[:, : max(1, int(n * (1 - self.alpha)))]]
        tile = torch.arange(1, grid.tiles, device=region.device)
        share = (salient[..., None] == tile).sum(dim=1) * (keep - base)  # in units of one over the salient tokens
        floor, remainder = share // salient.shape[1], share % salient.shape[1]
        rest = share_out(floor, most[1:], rank(remainder), min(others, keep - base))
        return torch.cat([torch.full_like(rest[:, :1], base), rest], dim=1)


@lru_cache(maxsize=64)
def layout(grid: Grid, regions: str, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Look up which tokens are no padding, `(n,)`, how many each tile has, and the tile of each base token, `(tokens,)`."""
    shown = torch.zeros(grid.n, dtype=torch.bool)
    shown[grid.sequence] = True
    across, down = grid.across, (grid.tiles - 1) // grid.across
    token = torch.arange(grid.height * grid.width)
    row, column = token // grid.width * down // grid.height, token % grid.width * across // grid.width
    region = 1 + (row * across + column if regions == "rectangles" else token * (across * down) // len(token))
    found = shown, shown.reshape(grid.tiles, -1).sum(dim=1), region
    shown, most, region = (copy_to_device(part, device) for part in found)
    return shown, most, region
