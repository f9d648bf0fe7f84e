"""Sizes: how an image's tokens lie, what is known of a model before it runs, and where tokens leave it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """How an image's vision tokens lie: `tiles` pictures of `height` x `width` tokens, raster order, base tile first."""

    tiles: int
    height: int
    width: int

    @property
    def n(self) -> int:
        """Tokens of all tiles together."""
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


def average_in(cuts: tuple[Cut, ...], n: int, layers: int) -> float:
    """Compute the mean number of vision tokens that enter a decoder layer under a schedule."""
    total, count, start = 0, n, 0
    for cut in cuts:
        total += count * (cut.at - start)
        count, start = cut.keep, cut.at
    return (total + count * (layers - start)) / layers
