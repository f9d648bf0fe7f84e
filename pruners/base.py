"""The pruner interface: a pruner is a small frozen dataclass that chooses vision tokens.

A pruner says where tokens leave (`cuts`), which evidence it wants there (`needs`), and how it chooses: by a `score`, or by
its own `select`, or, where tokens are merged, by `reduce`. Each rung has a default built on the one below. It never
touches a model: the harness collects the evidence, applies the choice and counts what really entered every layer.

Tensors are batched over images with the same number of tokens: `(images, n, ...)`. No result may depend on the other
images of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from vtpbench.pruners.errors import Impossible, share
from vtpbench.pruners.evidence import ATTENTION_KINDS, DECODER_KINDS, TEXT_KINDS, Evidence, Kind, TextView, look_up
from vtpbench.pruners.geometry import LLAVA_1_5_7B, Cut, Grid, ModelShape, TextTowerSource, average_in
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.pictures import first_of_pictures, join_pictures, join_segments, order_pictures
from vtpbench.pruners.ranking import NOWHERE, offset_index, rank, take, top

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "ATTENTION_KINDS",
    "DECODER_KINDS",
    "LLAVA_1_5_7B",
    "NOWHERE",
    "TEXT_KINDS",
    "Cut",
    "Evidence",
    "Grid",
    "Kind",
    "ModelShape",
    "Pruner",
    "Selection",
    "TextTowerSource",
    "TextView",
    "TokenView",
    "average_in",
    "offset_index",
    "rank",
    "take",
    "top",
]


@dataclass(frozen=True)
class TokenView:
    """What a pruner sees of some images at one cut.

    Attributes
    ----------
    cut : the cut that is being made
    stage : its number, from 0
    features : (images, n, dim) float32; the tokens that arrive: tower features at depth 0, else hidden states, of the tower
        or of the language model
    index : (images, n) int64; each token's place among the original tokens that `grid` lays out, -1 for one that has none
    grid : how the original tokens lie
    shape : the model
    keys : a stable name per image, for seeded draws; empty inside the tower, which all questions about an image share
    evidence : what `needs` asked for; `get` looks it up
    cls : (images, tiles, dim) float32 CLS features at depth 0 and inside the tower, None where it has none
    text : the text after the image, inside the language model where evidence has to do with it, else None
    size : (images, n) float32 or None; inside the tower, what was given as `Selection.size` at the cut before
    questions : what is asked about each image, at depth 0: for pruners that embed it with a text encoder of their own
    asked : (images, joint) float32; the questions as CLIP's text tower embeds them, where evidence `joint` was asked for

    """

    cut: Cut
    stage: int
    features: Tensor
    index: Tensor
    grid: Grid
    shape: ModelShape
    keys: tuple[str, ...] = ()
    evidence: Mapping[Evidence, Tensor] = field(default_factory=dict)
    cls: Tensor | None = None
    text: TextView | None = None
    size: Tensor | None = None
    questions: tuple[str, ...] = ()
    asked: Tensor | None = None

    def get(self, kind: Kind, layer: int | None = None) -> Tensor:
        """Give evidence, `(images, n, ...)`; `layer` as it was asked for, None where one layer alone was."""
        return look_up(self.evidence, kind, layer)

    @property
    def n(self) -> int:
        """Tokens per image that arrive."""
        return self.features.shape[1]

    def by_tile(self) -> TokenView:
        """Make every tile an image of its own; only at depth 0, where tiles have equally many tokens. `index` is the tile's."""
        tiles = self.grid.tiles
        first = _tile_numbers(self) * (self.grid.n // tiles)

        def split(x: Tensor) -> Tensor:
            return x.reshape(x.shape[0] * tiles, x.shape[1] // tiles, *x.shape[2:])

        return replace(
            self,
            cut=Cut(self.cut.at, share(self.cut.keep, tiles)),
            features=split(self.features),
            index=offset_index(split(self.index), -first),
            grid=replace(self.grid, tiles=1),
            keys=tuple(f"{key}/{t}" for key in self.keys for t in range(tiles)),
            questions=tuple(question for question in self.questions for _ in range(tiles)),
            evidence={name: split(value) for name, value in self.evidence.items()},
            cls=None if self.cls is None else split(self.cls),
            asked=None if self.asked is None else self.asked.repeat_interleave(tiles, dim=0),
        )


@dataclass(frozen=True)
class Selection:
    """What a pruner keeps.

    Attributes
    ----------
    index : (images, k) int64; which of the arriving tokens each outgoing row continues. Ascending and unique where no
        features are given. A merged row names the token whose place it takes, or -1 where it has none (CLS).
    features : (images, k, dim) or None; the outgoing rows where they are not simply the chosen tokens
    valid : (images, k) bool or None; False marks filling, for pruners whose count adapts to the image
    size : (images, k) float32 or None; inside the vision tower, how many tokens each row stands for: later layers attend to
        it as to so many (proportional attention)
    projected : whether `features` are in the language model's space already, as evidence `projected` is; at depth 0 only

    """

    index: Tensor
    features: Tensor | None = None
    valid: Tensor | None = None
    size: Tensor | None = None
    projected: bool = False

    @property
    def k(self) -> int:
        """Rows per image, filling included."""
        return self.index.shape[1]

    @property
    def merged(self) -> bool:
        """Whether rows may continue no token, or stand in another order than the tokens."""
        return self.features is not None


@dataclass(frozen=True)
class Pruner:
    """Base of all pruners; fields of a subclass are its options, `repr` is the run's record.

    Class attributes
    ----------------
    source : authors, where to read it
    venue, year : where and when it was published; empty and None for what was not
    reads_question : whether `TokenView.questions` decides: they are empty unless it says so, and a pruner that does not is asked
        once for all questions about a picture; what attention of the language model decides need not say so
    scope : `image` = all tiles of an image together, `tile` = each tile alone with its share of the budget; where tiles make up
        a picture before a pruner sees them (LLaVA-OneVision), that and the base tile are alone, each with a share by its size
    nested : whether one order of an image's tokens serves all budgets: a smaller one keeps the first tokens of what a larger one
        keeps. Rows of several budgets then ask once, for `selection_order`; `select` and `reduce` are not asked

    """

    source: ClassVar[str] = ""
    venue: ClassVar[str] = ""
    year: ClassVar[int | None] = None
    reads_question: ClassVar[bool] = False
    scope: ClassVar[Literal["image", "tile"]] = "image"
    nested: ClassVar[bool] = False

    @property
    def adaptive(self) -> bool:
        """Whether the count adapts to the image; the budget is then an upper bound and the observed mean is reported."""
        return False

    @property
    def position_rule(self) -> Literal["keep", "renumber"]:
        """What a cut inside the language model does to the positions of what stays."""
        return "keep"

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of registered pruners that this one is made of: their source, too, decides what it keeps."""
        return ()

    def fingerprint(self, shape: ModelShape) -> str:
        """Hash the files beside the options that decide what is kept on a model, e.g. trained weights; empty without any.

        Unless overridden these are the text tower's, where `needs` asks for evidence of it.
        """
        try:
            needs = self.needs(shape)
        except Impossible:  # said where the cell is planned
            return ""
        tower = shape.text_tower if any(need.kind == "joint" for need in needs) else None
        return "" if tower is None else tower.weights or ""

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """List evidence to collect; raises `Unsupported` where the model cannot give it."""
        del shape
        return frozenset()

    def target_grid(self, budget: int, grid: Grid, shape: ModelShape) -> tuple[int, int] | None:
        """Say to which height and width, in tokens, each tile is to shrink before the encoder; None leaves the image alone."""
        del budget, grid, shape
        return None

    def tower_cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        """Plan where tokens leave inside the vision tower, between the attention and the MLP of a layer; for one tile.

        A tile has `n` tokens and `budget` as its share. Layers are counted from the end, ascending, -1 the last; `reduce` is
        asked at each, and then at the cuts of `cuts`. Raises `Infeasible` with the reason.
        """
        del budget, n, shape
        return ()

    def cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        """Plan the schedule that gives an image of `n` tokens an average of `budget` tokens over the decoder layers.

        Ascending in `at`, descending in `keep`; raises `Infeasible` with the reason.
        """
        del n, shape
        return (Cut(0, budget),)

    def expected_average(self, budget: int, n: int, shape: ModelShape) -> float:
        """Average tokens that the auditor demands of this budget; differs from it only where a paper's own list is asked for."""
        del n, shape
        return float(budget)

    def score(self, view: TokenView) -> Tensor:
        """Rank tokens, `(images, n)`; higher stays. Equal scores favour the lower index."""
        raise NotImplementedError(f"{type(self).__name__} defines neither score, select nor reduce")

    def selection_order(self, view: TokenView) -> Tensor:
        """Order the tokens that stay, `(images, keep)`, the best first; by `score` unless overridden."""
        return rank(self.score(view))[..., : view.cut.keep]

    def select(self, view: TokenView) -> Tensor:
        """Choose tokens, `(images, keep)` ascending; the best `cut.keep` scores unless overridden."""
        return self.selection_order(view).sort(dim=-1).values

    def reduce(self, view: TokenView) -> Selection:
        """Choose and, for merging pruners, combine."""
        return Selection(self.select(view))

    def apply(self, view: TokenView) -> Selection:
        """Run `reduce` in this pruner's scope; the harness calls this."""
        if self.nested:
            return self.take_first(self.apply_order(view), view)
        if self._by_picture(view):
            return join_pictures(view, self.reduce)
        return self.join(self.reduce(view.by_tile()), view) if self._by_tile(view) else self.reduce(view)

    def apply_order(self, view: TokenView) -> Tensor:
        """Run `selection_order` in this pruner's scope: `(images, keep)`, or `(images * tiles, keep / tiles)` tile by tile."""
        if self._by_picture(view):
            return order_pictures(view, self.selection_order)
        return self.selection_order(view.by_tile() if self._by_tile(view) else view)

    def take_first(self, order: Tensor, view: TokenView) -> Selection:
        """Keep the first of an order that `apply_order` gave for the budget of `view`, or for a larger one."""
        if self._by_picture(view):
            return Selection(first_of_pictures(order, view))
        if not self._by_tile(view):
            return Selection(order[:, : view.cut.keep].sort(dim=1).values)
        return self.join(Selection(order[:, : share(view.cut.keep, view.grid.tiles)].sort(dim=1).values), view)

    def _apart(self, view: TokenView) -> bool:
        """Whether rectangles of tokens are asked alone: before the language model, where there are several."""
        return self.scope == "tile" and len(view.grid.pictures) > 1 and view.cut.at <= 0

    def _by_tile(self, view: TokenView) -> bool:
        """Whether each tile is asked alone."""
        return self._apart(view) and view.grid.tiled

    def _by_picture(self, view: TokenView) -> bool:
        """Whether rectangles are asked alone that differ in size."""
        return self._apart(view) and not view.grid.tiled

    def join(self, tiles: Selection, view: TokenView) -> Selection:
        """Put the selections of an image's tiles one behind the other."""
        images, count, per_tile = view.features.shape[0], view.grid.tiles, view.n // view.grid.tiles

        def flat(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.reshape(images, count * x.shape[1], *x.shape[2:])

        within = torch.where(tiles.index < per_tile, tiles.index, NOWHERE)  # else it would name another tile's token
        index = offset_index(within, _tile_numbers(view) * per_tile)
        return Selection(index.reshape(images, -1), flat(tiles.features), flat(tiles.valid), projected=tiles.projected)

    def segments(self, view: TokenView) -> Tensor | None:
        """Say to which group (slot, cluster) each arriving token belongs, `(images, n)` int64; None where there are no groups.

        Inside the vision tower the groups are the outgoing rows. Asked where a picture is painted, never in a run.
        """
        del view
        return None

    def apply_segments(self, view: TokenView) -> Tensor | None:
        """Run `segments` in this pruner's scope; tiles have groups of their own."""
        if self._by_picture(view):
            return join_segments(view, self.segments)
        if not self._by_tile(view):
            return self.segments(view)
        tiles = view.by_tile()
        found = self.segments(tiles)
        if found is None:
            return None
        return (found + _tile_numbers(view) * tiles.cut.keep).reshape(len(view.features), -1)


def _tile_numbers(view: TokenView) -> Tensor:
    """Give the number of its tile to each row, where every tile is an image of its own, `(images * tiles, 1)`."""
    return torch.arange(view.grid.tiles, device=view.index.device).repeat(len(view.features))[:, None]
