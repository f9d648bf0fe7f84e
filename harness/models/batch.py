"""A batch of prompts as it enters the language model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from vtpbench.harness.models.layout import Layout
from vtpbench.pruners.base import Cut, Grid


@dataclass(frozen=True)
class ImageTokens:
    """One image after the cut at depth 0.

    Attributes
    ----------
    key : name of the image, for seeded draws
    features : (k, vision width) tower features of what is left, before the projector
    index : (k,) place of each token among the image's `original` tokens, -1 for one that has none
    original : tokens before pruning
    grid : how they lay
    cuts : the schedule; cuts at depth 0 are done already
    doubt : scalar bool, whether what was chosen at depth 0 must be refused, or None; on the device, asked after the answer

    """

    key: str
    features: Tensor
    index: Tensor
    original: int
    grid: Grid
    cuts: tuple[Cut, ...]
    doubt: Tensor | None = None

    @property
    def later_cuts(self) -> tuple[Cut, ...]:
        """What remains to be done inside the language model."""
        return tuple(c for c in self.cuts if c.at > 0)

    def kept(self, later: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Find what stays at each cut, places among the original tokens; where there is no cut, all that the tower gave.

        `later` is the decoder's trace of this image: what stays at the cuts inside.
        """
        left = {0: self.index, **later}
        return {at: left[at] for at in sorted({cut.at for cut in self.cuts} or {0}) if at in left}


@dataclass(frozen=True)
class Batch:
    """Prompts ready for the language model, left-padded.

    Attributes
    ----------
    embeds : (rows, width, dim)
    positions : (rows, width) int64, or (axes, rows, width) where positions have several axes
    layout : where what stands
    images : in the numbering of the layout

    """

    embeds: Tensor
    positions: Tensor
    layout: Layout
    images: tuple[ImageTokens, ...]
