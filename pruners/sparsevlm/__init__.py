"""SparseVLM: the text tokens that concern the image rate the vision tokens; the best of the rest are merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from vtpbench.pruners.base import Cut, Evidence, ModelShape, Pruner, Selection, TokenView, average_in, rank, take
from vtpbench.pruners.budget import boundaries, one_of, published, refuse_renumbering, require_reachable
from vtpbench.pruners.errors import BadOption
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.sparsevlm.counts import LISTS, fair_cuts, list_cuts, recycled
from vtpbench.pruners.sparsevlm.merge import merge_clusters
from vtpbench.pruners.sparsevlm.rating import pick_raters, rate, rate_corrected, rotary_decay

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SparseVLM(Pruner):
    """Rank tokens in three steps by the attention of the raters, text tokens picked once from the input embeddings.

    Version 1.5 merges the best 30 % of what is pruned into a few cluster means, placed after the tokens that stay, and
    renumbers positions. Version 2 divides attention by its decay with distance, trusts half of the heads, merges nothing
    and keeps positions. `schedule='paper'` takes the authors' lists; they count tokens behind each layer, so that "192"
    means 206.5 tokens entering a layer (206.75 in version 2).

    Source: Zhang, Fan, Ma, Zheng, Huang, Cheng, Gudovskiy, Okuno, Nakata, Keutzer, Zhang, "SparseVLM: Visual Token
    Sparsification for Efficient Vision-Language Model Inference", ICML 2025 (arXiv:2410.04417), section 3;
    github.com/Gumpest/SparseVLMs (Apache-2.0), branches v1.5 and v2.0. Departures: fair lists (`counts.fair_cuts`); ties by
    index instead of noise; the decay has a floor; half of any model's heads instead of 14; a budget of all tokens prunes
    none; scores and merging are float32.
    """

    source: ClassVar[str] = "Zhang et al., github.com/Gumpest/SparseVLMs"
    venue: ClassVar[str] = "ICML"
    year: ClassVar[int | None] = 2025
    version: Literal["1.5", "2"] = "1.5"
    schedule: Literal["fair", "paper"] = "fair"
    positions: Literal["reference", "keep"] = "reference"
    """`reference`: as the version does; where version 1.5 must `keep`, a merged row has its cluster centre's position."""
    heads: int | None = None
    """Version 2: heads that are trusted; None = half."""
    clamp: float | None = 0.1
    """Version 2: least decay, as a fraction of its value at distance 0; None = the authors' formula, which turns negative.

    With a rotary base of 10,000 (LLaVA) the decay falls below 0.1 at distance 721 and below 0 at 1707 in heads of 128, but at
    406 and 725 in heads of 64, at 90 and 91 in heads of 16: there the default acts, and scores are not the authors'. With a
    base of a million (Qwen2.5-VL) and heads of 128 it never acts within 8192 tokens."""

    def __post_init__(self) -> None:
        one_of("version", self.version, ("1.5", "2"))
        one_of("schedule", self.schedule, ("fair", "paper"))
        one_of("positions", self.positions, ("reference", "keep"))
        if self.clamp is not None and not 0 < self.clamp <= 1:
            raise BadOption("clamp", f"option clamp={self.clamp}: use a fraction between 0 and 1, or null")

    @property
    def merging(self) -> bool:
        """Whether pruned tokens are recycled."""
        return self.version == "1.5"

    @property
    def position_rule(self) -> Literal["keep", "renumber"]:
        """What a cut does to positions."""
        return "renumber" if self.merging and self.positions == "reference" else "keep"

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """Input embeddings, and every text token's attention in the layer that has just run; for version 2 rotary angles, too."""
        if self.position_rule == "renumber":
            refuse_renumbering(shape, "SparseVLM 1.5")
        if not 1 <= self._heads(shape.decoder_heads) <= shape.decoder_heads:
            raise BadOption("heads", f"option heads={self.heads}: use 1 to {shape.decoder_heads}, the heads of this model")
        wanted = {Evidence("embeddings"), Evidence("text", layer=-1)}
        return frozenset(wanted if self.merging else wanted | {Evidence("rotary")})

    def cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        """Cut behind layers 2, 6 and 15 of 32; each cut says how many of its rows are merged."""
        at = boundaries((3, 7, 16), shape)
        if self.schedule == "paper":
            chosen = published(LISTS[self.version], budget, n, shape, f"SparseVLM {self.version}")
            return list_cuts(at, chosen, n, self.merging)
        require_reachable(budget, list_cuts(at, (1, 1, 1), n, self.merging), n, shape, f"SparseVLM {self.version}")
        return fair_cuts(self.version, at, budget, n, shape.decoder_layers)

    def expected_average(self, budget: int, n: int, shape: ModelShape) -> float:
        """Average that a run must show: the budget, but for the authors' lists, which exceed their nominal budget."""
        if self.schedule == "fair":
            return float(budget)
        return average_in(self.cuts(budget, n, shape), n, shape.decoder_layers)

    def score(self, view: TokenView) -> Tensor:
        """Attention received from the raters, mean over heads and raters."""
        assert view.text is not None
        raters = pick_raters(view.get("embeddings"), view.text.get("embeddings"), view.text.real)
        attention = view.get("text", layer=-1)
        if self.merging:
            return rate(attention, raters)
        decay = rotary_decay(view.text.get("rotary"), view.get("rotary"))
        decay = decay if self.clamp is None else decay.clamp(min=self.clamp)
        return rate_corrected(attention, raters, decay, self._heads(attention.shape[1]))

    def _heads(self, heads: int) -> int:
        return max(1, heads // 2) if self.heads is None else self.heads

    def reduce(self, view: TokenView) -> Selection:
        """Keep the best; in version 1.5 add the cluster means of the next best, the centre's index standing for a cluster."""
        if not view.cut.merged:
            return super().reduce(view)
        kept = view.cut.keep - view.cut.merged
        order = rank(self.score(view))
        stay, pool = order[:, :kept].sort(dim=-1).values, order[:, kept : kept + recycled(view.n - kept)]
        merged, centres = merge_clusters(take(view.features, pool), view.cut.merged)
        return Selection(torch.cat([stay, take(pool, centres)], dim=1), torch.cat([take(view.features, stay), merged], dim=1))
