"""VScan: local and global tokens of the vision tower, the others merged into them; then a second cut in the language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from vtpbench.pruners.base import Cut, Evidence, ModelShape, Pruner, Selection, TokenView, rank
from vtpbench.pruners.budget import one_of, refuse_renumbering
from vtpbench.pruners.errors import Infeasible, UserError
from vtpbench.pruners.evidence import feature_attention
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.vscan.tower import choose_local, merge_into

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class VScan(Pruner):
    """Keep `first` times the budget before the language model, and in its middle so few that the average is the budget.

    Before: half of the tokens of a tile are local, the best attended of each window in a shallow layer, the others global,
    the best attended of what remains in the layer that makes the features. Every other token joins the one that stays with
    the most similar projected features (cosine), and a row is the mean of what it holds. In the middle tokens are ranked
    by the last prompt token's attention in the layer about to run.

    With CLS it is the attention of CLS, the shallow layer is 6 of 24, and 4 x 4 windows give equally many; what they cannot
    share equally is global. Without it it is the attention received, the shallow layer the first with full attention, and
    each window of 4 x 4 tokens gives no more than its share, rounded up, the best first.

    Options
    -------
    first : tokens before the language model, in budgets; 1.5 as 96 -> 32 of the authors' 64
    boundary : depth of the second cut
    merge : whether the others join what stays
    positions : `reference` renumbers after the second cut, as the authors' LLaVA does; `keep` as their Qwen2.5-VL

    Source: Zhang, Ma, Fang, Yu, Zhang, Zhang, Xie, Sycara, Mi, Yu, "VScan: Rethinking Visual Token Reduction for Efficient
    Large Vision-Language Models", TMLR 2026 (arXiv:2505.22654), both stages, and github.com/Tencent/SelfEvolvingAgent (MIT).
    The counts at 192 and 128 are those of 64 in proportion. Departures: the count is exact where windows cannot share it; a
    token is never taken twice; the second cut ranks all tokens of an image, with rotary embedding; ties to the lower index;
    float32.
    """

    source: ClassVar[str] = "Zhang et al., arXiv:2505.22654"
    venue: ClassVar[str] = "TMLR"
    year: ClassVar[int | None] = 2026
    scope: ClassVar[Literal["image", "tile"]] = "tile"
    first: float = 1.5
    boundary: float = 0.5
    merge: bool = True
    positions: Literal["reference", "keep"] = "reference"

    def __post_init__(self) -> None:
        one_of("positions", self.positions, ("reference", "keep"))
        if self.first < 1 or not 0 < self.boundary < 1:
            raise UserError(
                f"VScan with first={self.first}, boundary={self.boundary}: use 1 or more, and a depth between 0 and 1"
            )

    @property
    def position_rule(self) -> Literal["keep", "renumber"]:
        """What the second cut does to positions."""
        return "renumber" if self.positions == "reference" else "keep"

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """Ask for the attention of both layers, the projected tokens, and the last prompt token's attention."""
        if self.position_rule == "renumber":
            refuse_renumbering(shape, "VScan")
        tower = shallow_attention(shape), feature_attention(shape, "VScan")
        return frozenset({*tower, Evidence("projected"), Evidence("row", layer=0)})

    def cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        """Cut twice: at * before + (layers - at) * after = layers * budget."""
        layers, at, tiles = shape.decoder_layers, shape.decoder_layer(self.boundary), shape.tiles or 1
        before = tiles * round(self.first * budget / tiles)
        if before > n or at >= layers:
            why = (
                f"{before} of {n} tokens before the language model" if before > n else f"a cut behind the last of {layers} layers"
            )
            raise Infeasible(f"VScan with first={self.first:g} at a budget of {budget} means {why}; lower the budget, or `first`")
        after = round((layers * budget - at * before) / (layers - at))
        if after < 1:
            raise Infeasible(f"VScan with first={self.first:g} leaves none of {budget} tokens to layer {at}; lower `first`")
        return (Cut(0, before), Cut(at, min(before, after)))

    def score(self, view: TokenView) -> Tensor:
        """Rank for the second cut by the last prompt token's attention, mean over heads."""
        return view.get("row", layer=0)

    def reduce(self, view: TokenView) -> Selection:
        """Choose; before the language model merge the others."""
        if view.cut.at > 0:
            return super().reduce(view)
        index = self.scan(view)
        if not self.merge or view.cut.keep >= view.n:
            return Selection(index)
        return Selection(index, merge_into(index, view.get("projected")), projected=True)

    def scan(self, view: TokenView) -> Tensor:
        """Choose the local and the global tokens of one tile, ascending."""
        shape, keep = view.shape, view.cut.keep
        near, deep = view.evidence[shallow_attention(shape)], view.evidence[feature_attention(shape, "VScan")]
        local = choose_local(near, view.grid.height, view.grid.width, keep // 2, equally=shape.has_cls)
        score = deep.scatter(1, local, -torch.inf)
        return torch.cat([local, rank(score)[:, : keep - local.shape[1]]], dim=1).sort(dim=1).values


def shallow_attention(shape: ModelShape) -> Evidence:
    """Name the attention that picks local tokens."""
    if shape.has_cls:
        return Evidence("cls", shape.vision_layer(6 / 24))
    return Evidence("received", shape.full_attention[0])
