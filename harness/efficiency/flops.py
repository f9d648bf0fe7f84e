"""Floating-point operations of a prompt, counted from sizes alone; a multiplication with its addition is two.

Matrix products, convolutions and attention are counted; norms, activations, softmax and biases, under 1 % of a model of
full size, are not. There are two conventions:

- `exact`: what is computed. Three matrices in the decoder's gated MLPs, grouped keys and values, all layers of the vision
  tower with its windows and its merger, `lm_head` for the tokens that are generated. Attention is counted over the whole
  square, as `torch.utils.flop_counter` counts it and as kernels that take a mask compute it; FlashAttention skips what
  lies above the diagonal, up to half of the square, which is 1.2 % of a LLaVA-1.5-7B prefill and 5 % of LLaVA-NeXT's.
- `table4`: the decoder alone, as Table 4 of the OC-VTP paper (arXiv 2511.20439) and the papers on FastV and VisionZip
  count it, but for their not counting additions: `2 (4 n d^2 + 2 n^2 d + 2 n d m)` for a layer of width `d` and MLP width
  `m` that `n` tokens enter. Two MLP matrices, no grouped heads; tower, projector and `lm_head` are 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from vtpbench.harness.models.dimensions import DecoderDimensions, Dimensions, TowerDimensions

if TYPE_CHECKING:
    from vtpbench.pruners.base import Grid

Convention = Literal["exact", "table4"]


@dataclass(frozen=True)
class Workload:
    """One prompt with one image.

    Attributes
    ----------
    grid : how the tokens lie that the tower makes where none leaves it
    per_layer : vision tokens that entered each decoder layer, as observed; means over images are taken as they are
    text : text tokens of the prompt
    new : tokens that are generated, of which the prefill gives the first
    pruner : operations of the pruner, evidence included
    tower : tokens of a tile that entered the MLP of each layer of the tower; empty = it did not run, None = all of them

    """

    grid: Grid
    per_layer: tuple[float, ...]
    text: int
    new: int = 1
    pruner: float = 0.0
    tower: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Flops:
    """Operations by stage.

    Attributes
    ----------
    convention : what is counted; what it leaves out is 0
    vision : the tower, with its merger where it has one
    pruner : as the workload says
    projector : for the tokens that enter the decoder; newlines between rows, which need none, are counted as well
    prefill : each decoder layer
    head : `lm_head` on the last position
    decode : each further token, with its `lm_head`

    """

    convention: Convention
    vision: float
    pruner: float
    projector: float
    prefill: tuple[float, ...]
    head: float
    decode: tuple[float, ...]

    @property
    def first_token(self) -> float:
        """All that precedes the first generated token."""
        return self.vision + self.pruner + self.projector + sum(self.prefill) + self.head

    @property
    def total(self) -> float:
        """Operations of all stages and tokens together."""
        return self.first_token + sum(self.decode)


def count(dimensions: Dimensions, work: Workload, convention: Convention = "exact") -> Flops:
    """Count the operations of a prompt.

    Raises
    ------
    ValueError : `per_layer` has another length than the decoder

    """
    tower, decoder = dimensions.tower, dimensions.decoder
    if len(work.per_layer) != decoder.layers:
        raise ValueError(f"token counts of {len(work.per_layer)} layers for a decoder of {decoder.layers}")
    exact = convention == "exact"
    layer = _exact_layer if exact else _table4_layer
    entered = [vision + work.text for vision in work.per_layer]
    head = 2 * decoder.width * decoder.vocabulary if exact else 0
    return Flops(
        convention=convention,
        vision=_tower(tower, work) if exact else 0,
        pruner=work.pruner,
        projector=_mlp(dimensions.projector, work.per_layer[0]) if exact else 0,
        prefill=tuple(layer(decoder, n, n) for n in entered),
        head=head,
        decode=tuple(head + sum(layer(decoder, 1, n + step) for n in entered) for step in range(1, work.new)),
    )


def _exact_layer(decoder: DecoderDimensions, queries: float, keys: float) -> float:
    """Layer that `queries` tokens enter, which see `keys` tokens, themselves among them."""
    heads = decoder.heads * decoder.head_dim
    projections = 2 * queries * decoder.width * 2 * (heads + decoder.kv_heads * decoder.head_dim)
    return projections + 4 * queries * keys * heads + 6 * queries * decoder.width * decoder.intermediate


def _table4_layer(decoder: DecoderDimensions, queries: float, keys: float) -> float:
    width = decoder.width
    return 2 * (4 * queries * width**2 + 2 * queries * keys * width + 2 * queries * width * decoder.intermediate)


def _mlp(widths: tuple[int, ...], tokens: float) -> float:
    return 2 * tokens * sum(a * b for a, b in pairwise(widths))


def _tower(tower: TowerDimensions, work: Workload) -> float:
    """Operations over the tiles of an image."""
    grid, behind = work.grid, work.tower
    tokens = grid.height * grid.width
    if behind is None:
        behind = (tokens,) * tower.layers
    if not behind:
        return 0
    attended, passed = ([tower.patches * n + tower.cls for n in counts] for counts in ((tokens, *behind[:-1]), behind))
    matrices = 2 * tower.width * (4 * tower.width * sum(attended) + tower.matrices * tower.intermediate * sum(passed))
    if tower.window is None:
        pairs = sum(n**2 for n in attended)
    else:  # no token leaves inside such a tower
        windows = _squares(grid.height, tower.window) * _squares(grid.width, tower.window)
        pairs = tower.full * attended[0] ** 2 + (tower.layers - tower.full) * tower.patches**2 * windows
    embedding = 2 * tower.patches * tokens * tower.patch * tower.width
    return grid.tiles * (embedding + matrices + 4 * tower.width * pairs + tower.mergers * _mlp(tower.merger, tokens))


def _squares(length: int, side: int) -> int:
    """Sum of the squared lengths of the pieces of a side that is cut into windows; the last one may be shorter."""
    return length // side * side**2 + (length % side) ** 2
