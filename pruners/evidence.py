"""Evidence: what a pruner may ask to see of a model, and the text after an image as it sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from vtpbench.pruners.errors import Unsupported
from vtpbench.pruners.geometry import ModelShape

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal[
    "hidden", "received", "cls", "keys", "cls_one_head", "keys_all_heads", "projected", "joint",
    "row", "rows_mean", "text", "layer_keys", "states", "normed", "embeddings", "rotary",
]  # fmt: skip
ATTENTION_KINDS: frozenset[Kind] = frozenset(("received", "cls", "keys", "cls_one_head", "keys_all_heads"))
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
    - `cls_one_head`: attention of the CLS query as if the layer had one head as wide as all of them, `(images, n)`;
    - `keys_all_heads`: as `keys`, but of all heads, one behind the other, `(images, n, width)`;
    - `projected`: tokens after the projector, in the language model's space, `(images, n, dim)`; `layer` unused;
    - `joint`: features in the space that a CLIP tower shares with its text tower (its last layer norm, then its projection),
      `(images, n, joint)`; `layer` unused. With it comes `TokenView.asked`, what is asked in the same space.

    Qwen2.5-VL: `hidden`, `received`, `keys` and `keys_all_heads` are means over the four patches of a token, in raster order;
    keys are taken after the rotary embedding; `projected` are the features themselves. InternVL: all evidence of a layer are
    such means; queries and keys are taken behind their norms.

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


def feature_attention(shape: ModelShape, name: str) -> Evidence:
    """Name the attention on each token in the layer that makes the features: of CLS, or else of all tokens.

    Raises `Unsupported`, naming the pruner, where tokens of that layer do not see each other.
    """
    if shape.feature_layer not in shape.full_attention:
        raise Unsupported(f"{name} needs full attention in the feature layer {shape.feature_layer} of {shape.family}")
    return Evidence("cls" if shape.has_cls else "received", shape.feature_layer)


def joint_space(shape: ModelShape, name: str) -> Evidence:
    """Name the evidence of tokens in the space of CLIP's text tower; raises `Unsupported`, naming the pruner, without a tower."""
    tower = shape.text_tower
    if tower is None:
        why = "has a vision tower that was trained without one" if not shape.has_cls else "names none: give it a `text_tower`"
        raise Unsupported(f"{name} compares tokens with the question by CLIP's text tower, and {shape.family} {why}")
    if tower.weights is None:
        raise Unsupported(f"{name} needs the text tower of {tower.name}, which is not here; run `hf download {tower.name}`")
    return Evidence("joint")


def look_up(evidence: Mapping[Evidence, Tensor], kind: Kind, layer: int | None) -> Tensor:
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
        return look_up(self.evidence, kind, layer)
