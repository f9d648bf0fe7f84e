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
from typing import ClassVar, Literal

import torch
from torch import Tensor

from vtpbench.pruners.errors import share

Kind = Literal[
    "hidden", "received", "cls", "keys", "projected",
    "row", "rows_mean", "text", "layer_keys", "states", "normed", "embeddings", "rotary",
]  # fmt: skip
ATTENTION_KINDS: frozenset[Kind] = frozenset(("received", "cls", "keys"))
"""Evidence of the vision tower that takes what enters a layer's attention."""
TEXT_KINDS: frozenset[Kind] = frozenset(("layer_keys", "states", "normed", "embeddings", "rotary"))
"""Evidence of the language model that the text after an image has, too; see `TextView`."""
DECODER_KINDS: frozenset[Kind] = TEXT_KINDS | frozenset(("row", "rows_mean", "text"))
"""Evidence of the language model."""


@dataclass(frozen=True)
class Evidence:
    """Something that a pruner wants to see; always float32, collected for the named layer only, beside SDPA.

    Of the vision tower (`layer` = module index, negative from the end, -1 = last module), for the cut at depth 0; attention
    of a layer with a cut of its own (`Pruner.tower_cuts`) is for that cut:

    - `hidden`: output of the layer, `(images, n, width)`;
    - `received`: attention that each token receives, mean over heads and over all queries of its tile, `(images, n)`;
    - `cls`: attention of the CLS query, mean over heads, `(images, n)`;
    - `keys`: key projections before any scaling, mean over heads, `(images, n, head_dim)`;
    - `projected`: tokens after the projector, in the language model's space, `(images, n, dim)`; `layer` unused.

    Qwen2.5-VL: `hidden`, `received` and `keys` are means over the four patches of a token, in raster order; `keys` are taken
    after the rotary embedding; `projected` are the features themselves.

    Of the language model (cuts at depth >= 1; `layer` is relative to the cut: -1 = the layer that has just run,
    0 = the layer about to run, with the tokens that are still there):

    - `row`: post-softmax attention of the last prompt token, mean over heads, `(images, n)`;
    - `rows_mean`: the same, mean over all query rows, `(images, n)`;
    - `text`: attention of every text token after the image, `(images, heads, text, n)`;
    - `layer_keys`: rotated keys of the layer, heads concatenated, `(images, n, dim)`;
    - `states`: hidden states at the cut, as `TokenView.features`, `(images, n, dim)`; `layer` unused;
    - `normed`: hidden states at the cut through the model's final norm, `(images, n, dim)`; `layer` unused;
    - `embeddings`: what entered the language model, `(images, n0, dim)`; `layer` unused;
    - `rotary`: cosines, then sines, of the rotary angles, one for each frequency, wherever positions have axes,
      `(images, n, head_dim)`; `layer` unused.

    The last five come for the text after the image, too, as `(images, text, ...)`, in `TokenView.text`.
    """

    kind: Kind
    layer: int = 0


@dataclass(frozen=True)
class Grid:
    """How an image's vision tokens lie: `tiles` pictures of `height` x `width` tokens, raster order, base tile first."""

    tiles: int
    height: int
    width: int

    @property
    def n(self) -> int:
        """Number of tokens."""
        return self.tiles * self.height * self.width


@dataclass(frozen=True)
class ModelShape:
    """What a pruner may know of a model before it runs."""

    family: str
    decoder_layers: int
    decoder_heads: int
    decoder_width: int
    vision_layers: int
    vision_width: int
    feature_layer: int
    """Module index of the vision layer whose output are the features."""
    has_cls: bool
    full_attention: tuple[int, ...]
    """Vision layers in which every token sees every other."""
    multi_axis_positions: bool = False
    """Positions are (time, height, width); they can be kept, not renumbered."""
    folder: str | None = None
    """Folder of the checkpoint, where pruners that were trained for this model are looked for."""
    tiles: int | None = None
    """Tiles of an image, where every image has equally many."""

    def vision_layer(self, fraction: float) -> int:
        """Find the module index of the layer at a fraction of the depth: 9/24 is module 8 of 24, "layer 9" in the papers."""
        return max(1, round(fraction * self.vision_layers)) - 1

    def decoder_layer(self, fraction: float) -> int:
        """Find the boundary at a fraction of the decoder's depth, at least 1."""
        return max(1, round(fraction * self.decoder_layers))


@dataclass(frozen=True)
class Cut:
    """From decoder layer `at` on, `keep` vision tokens of an image remain; 0 = before the language model.

    A negative `at` is a layer of the vision tower, counted from its end: `keep` tokens of a tile go on to the layer's MLP.
    """

    at: int
    keep: int


def _look_up(evidence: Mapping[Evidence, Tensor], kind: Kind, layer: int | None) -> Tensor:
    """Find evidence by its kind and, where it was asked of several layers, its layer; raises `KeyError` naming what there is."""
    found = [value for need, value in evidence.items() if need.kind == kind and layer in (None, need.layer)]
    if len(found) != 1:
        asked = ", ".join(f"{need.kind} of layer {need.layer}" for need in evidence) or "nothing"
        raise KeyError(f"'{kind}' of layer {layer} is no one thing of what `needs` asked for here: {asked}")
    return found[0]


@dataclass(frozen=True)
class TextView:
    """What a pruner sees of the text after an image, at a cut inside the language model.

    Attributes
    ----------
    real : (images, text) bool; which columns hold a token, since prompts differ in length
    evidence : what `needs` asked for of `TEXT_KINDS`, `(images, text, ...)` float32

    """

    real: Tensor
    evidence: Mapping[Evidence, Tensor] = field(default_factory=dict)

    def get(self, kind: Kind, layer: int | None = None) -> Tensor:
        """Give evidence, `(images, text, ...)`; `layer` as it was asked for, None where one layer alone was."""
        return _look_up(self.evidence, kind, layer)


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

    def get(self, kind: Kind, layer: int | None = None) -> Tensor:
        """Give evidence, `(images, n, ...)`; `layer` as it was asked for, None where one layer alone was."""
        return _look_up(self.evidence, kind, layer)

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

    """

    index: Tensor
    features: Tensor | None = None
    valid: Tensor | None = None
    size: Tensor | None = None

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
    source : authors, venue, where to read it
    scope : `image` = all tiles of an image together, `tile` = each tile alone with its share of the budget

    """

    source: ClassVar[str] = ""
    scope: ClassVar[Literal["image", "tile"]] = "image"

    @property
    def adaptive(self) -> bool:
        """Whether the count adapts to the image; the budget is then an upper bound and the observed mean is reported."""
        return False

    @property
    def position_rule(self) -> Literal["keep", "renumber"]:
        """What a cut inside the language model does to the positions of what stays."""
        return "keep"

    def fingerprint(self, shape: ModelShape) -> str:
        """Hash the files beside the options that decide what is kept on a model, e.g. trained weights; empty without any."""
        del shape
        return ""

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

    def select(self, view: TokenView) -> Tensor:
        """Choose tokens, `(images, keep)` ascending; the best `cut.keep` scores unless overridden."""
        return top(self.score(view), view.cut.keep)

    def reduce(self, view: TokenView) -> Selection:
        """Choose and, for merging pruners, combine."""
        return Selection(self.select(view))

    def apply(self, view: TokenView) -> Selection:
        """Run `reduce` in this pruner's scope; the harness calls this."""
        if self.scope == "image" or view.grid.tiles == 1 or view.cut.at > 0:
            return self.reduce(view)
        return self.join(self.reduce(view.by_tile()), view)

    def join(self, tiles: Selection, view: TokenView) -> Selection:
        """Put the selections of an image's tiles one behind the other."""
        images, count, per_tile = view.features.shape[0], view.grid.tiles, view.n // view.grid.tiles

        def flat(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.reshape(images, count * x.shape[1], *x.shape[2:])

        within = torch.where(tiles.index < per_tile, tiles.index, NOWHERE)  # else it would name another tile's token
        index = offset_index(within, _tile_numbers(view) * per_tile)
        return Selection(index.reshape(images, -1), flat(tiles.features), flat(tiles.valid))

    def segments(self, view: TokenView) -> Tensor | None:
        """Say to which group (slot, cluster) each arriving token belongs, `(images, n)` int64; None where there are no groups.

        Inside the vision tower the groups are the outgoing rows. Asked where a picture is painted, never in a run.
        """
        del view
        return None

    def apply_segments(self, view: TokenView) -> Tensor | None:
        """Run `segments` in this pruner's scope; tiles have groups of their own."""
        if self.scope == "image" or view.grid.tiles == 1 or view.cut.at > 0:
            return self.segments(view)
        tiles = view.by_tile()
        found = self.segments(tiles)
        if found is None:
            return None
        return (found + _tile_numbers(view) * tiles.cut.keep).reshape(len(view.features), -1)


def _tile_numbers(view: TokenView) -> Tensor:
    """Give the number of its tile to each row, where every tile is an image of its own, `(images * tiles, 1)`."""
    return torch.arange(view.grid.tiles, device=view.index.device).repeat(len(view.features))[:, None]


NOWHERE = -2
"""As an index: no token, and not the absence of one either; a choice that holds it is refused."""


def rank(score: Tensor) -> Tensor:
    """Order tokens by descending score, ties by ascending index; `(..., n)` to `(..., n)`."""
    return torch.sort(score.float(), dim=-1, descending=True, stable=True).indices


def top(score: Tensor, k: int) -> Tensor:
    """Choose the `k` best indices of the last dimension, ascending; ties favour the lower index."""
    return rank(score)[..., :k].sort(dim=-1).values


def offset_index(index: Tensor, by: Tensor) -> Tensor:
    """Add to places; what is negative, -1 for a row that has none, stays."""
    return torch.where(index < 0, index, index + by)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Gather rows: `(images, n, ...)` by `(images, k)` to `(images, k, ...)`."""
    shape = index.shape + (1,) * (x.dim() - 2)
    return x.gather(1, index.reshape(shape).expand(*index.shape, *x.shape[2:]))


def average_in(cuts: tuple[Cut, ...], n: int, layers: int) -> float:
    """Compute the mean number of vision tokens that enter a decoder layer under a schedule."""
    total, count, start = 0, n, 0
    for cut in cuts:
        total += count * (cut.at - start)
        count, start = cut.keep, cut.at
    return (total + count * (layers - start)) / layers
