"""HoloV: a share of the budget for each stretch of the image, spent on the tokens that attention points to there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal

from vtpbench.pruners.base import Evidence, ModelShape, Pruner, TokenView, rank, top
from vtpbench.pruners.budget import one_of
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.evidence import feature_attention
from vtpbench.pruners.geometry import sequence_on
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.quotas import best_of_each, share_out
from vtpbench.pruners.transfer import copy_to_device

if TYPE_CHECKING:
    from torch import Tensor

EPSILON = 1e-6


@dataclass(frozen=True)
class HoloV(Pruner):
    """Cut the sequence of tokens into runs, share the budget among them by their scores, and keep the best attended of each.

    A token's score is its attention (of CLS or, without one, received), times 1000, plus `beta` times how much its cosine to
    the others of its run varies, scaled to the size of the attention. A run's share is its mean score; what rounding down
    leaves goes, one each, to the runs with the largest shares. Runs are stretches of the sequence, not rectangles.

    Note: as released, the variety is scaled by its own mean over the run, so that it cancels: runs share by mean attention
    alone, and features decide nothing. `scaling='image'` scales by the mean over the image, so that it counts; that is this
    project's reading, no row of the paper.

    Options
    -------
    regions : runs; None = 1024 tokens / (576 budget), the rule of the authors' Qwen code, which gives the 16 runs of their
        LLaVA code at 64 of 576 and 5 and 8 at 192 and 128, for which they publish none. At most one for two tokens
    beta : weight of the variety

    Source: Zou, Lu, Wang, Yan, Lyu, Zheng, Zhang, Hu, "Don't Just Chase 'Highlighted Tokens' in MLLMs: Revisiting Visual
    Holistic Context Retention" (HoloV), NeurIPS 2025, method section and github.com/obananas/HoloV. Departures: tokens in
    image order, not by attention; a share beyond a run's size is dealt on, one each, where the authors fill up with rows of
    zeros; attention and features of Qwen2.5-VL in the same order; ties to the lower index; float32.
    """

    source: ClassVar[str] = "Zou et al., arXiv:2510.02912"
    venue: ClassVar[str] = "NeurIPS"
    year: ClassVar[int | None] = 2025
    regions: int | None = None
    scaling: Literal["region", "image"] = "region"
    beta: float = 0.09

    def __post_init__(self) -> None:
        one_of("scaling", self.scaling, ("region", "image"))
        if self.regions is not None and self.regions < 1:
            raise UserError(f"option regions={self.regions}: use 1 or more, or null")

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """Ask for the attention of the layer that makes the features, and for the tokens as the language model gets them."""
        return frozenset({feature_attention(shape, "HoloV"), Evidence("projected")})

    def select(self, view: TokenView) -> Tensor:
        """Share the budget out and keep the best of each run; padding only where nothing else is left."""
        shown = sequence_on(view.grid, view.features.device)
        keep = min(view.cut.keep, len(shown))
        ids, real = runs(len(shown), self.count(len(shown), keep), view.features.device)
        attention = view.evidence[feature_attention(view.shape, "HoloV")][:, shown[ids]]
        weight = self.weights(attention, view.get("projected")[:, shown[ids]], real)
        quota = share_out((weight * keep).floor().long(), real.sum(dim=1), rank(weight), keep)
        stays = best_of_each(attention.masked_fill(~real, -1), quota) & real
        kept = attention.new_zeros(len(attention), view.n)
        return top(kept.index_add(1, shown[ids].flatten(), stays.flatten(1).to(kept)), view.cut.keep)

    def count(self, n: int, keep: int) -> int:
        """Count the runs of `n` tokens of which `keep` stay."""
        wanted = 1024 * n // (576 * keep) if self.regions is None else self.regions
        return max(1, min(wanted, n // 2))

    def weights(self, attention: Tensor, features: Tensor, real: Tensor) -> Tensor:
        """Weigh the runs, `(images, runs)`, by attention `(images, runs, m)` and features `(images, runs, m, dim)`."""
        unit = features / (features.norm(dim=-1, keepdim=True) + EPSILON) * real[..., None]
        alike = unit @ unit.mT
        alike = alike - torch.diag_embed(alike.diagonal(dim1=-2, dim2=-1))
        size = real.sum(dim=1)
        others = (size - 1).clamp(min=1)[:, None]
        mean = alike.sum(dim=-1, keepdim=True) / others[..., None]
        variety = ((alike - mean).square() * real[:, None]).sum(dim=-1) / others * real
        given = 1000 * attention * real
        over, n = ((-1,), size) if self.scaling == "region" else ((-2, -1), size.sum())
        gamma = (given.sum(over) / n) / (variety.sum(over) / n + EPSILON)
        score = given + self.beta * gamma.reshape(len(given), -1, 1) * variety
        weight: Tensor = score.sum(dim=-1) / size
        return weight / (weight.sum(dim=1, keepdim=True) + EPSILON)


@lru_cache(maxsize=64)
def runs(n: int, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cut `n` places into runs, the longer ones first: places `(count, m)`, and which of them are no filling."""
    size = torch.tensor([n // count + (number < n % count) for number in range(count)])
    place = torch.arange(int(size.max()))
    ids, real = (size.cumsum(0) - size)[:, None] + place, place < size[:, None]
    return copy_to_device(ids.clamp(max=n - 1), device), copy_to_device(real, device)
