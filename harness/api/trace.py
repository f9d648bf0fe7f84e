"""What pruning did to the images of some questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean

from torch import Tensor

from vtpbench.harness.pruning.batch import ImageTokens
from vtpbench.harness.pruning.decoder_hooks import ForwardTrace


@dataclass(frozen=True)
class TracedImage:
    """One image that was asked about.

    Attributes
    ----------
    original : vision tokens without pruning
    per_layer : vision tokens that entered each decoder layer
    kept : `(k,)` int64 places of the tokens that stay at each cut, by layer

    """

    original: int
    per_layer: tuple[int, ...]
    kept: Mapping[int, Tensor]


@dataclass
class SelectionTrace:
    """What stayed of the images that were asked about inside a `pruned` block, one entry an image, in the order of asking.

    It grows with every answer. A prompt without an image adds nothing.
    """

    images: list[TracedImage] = field(default_factory=list, repr=False)
    """The same, an object an image; its tensors lie on the model's device."""

    @property
    def kept(self) -> list[dict[int, list[int]]]:
        """Places of the tokens that stay at each cut, by layer: 0 = before the language model, k = before decoder layer k.

        Places count an image's tokens in the order of the vision tower, tile after tile in raster order, from 0; -1 is a row
        that continues no token (a merged one, a newline). Where nothing is cut there is a single entry 0 with all tokens.
        """
        return [{layer: tokens.tolist() for layer, tokens in image.kept.items()} for image in self.images]

    @property
    def tokens_per_layer(self) -> list[list[int]]:
        """Vision tokens that entered each decoder layer, counted in the forward pass."""
        return [list(image.per_layer) for image in self.images]

    @property
    def tokens(self) -> list[float]:
        """Vision tokens that entered a decoder layer, mean over the layers: what a budget is about."""
        return [fmean(image.per_layer) for image in self.images]

    @property
    def original(self) -> list[int]:
        """Vision tokens of each image without pruning."""
        return [image.original for image in self.images]

    def add(self, asked: Iterable[ImageTokens], entered: Iterable[ImageTokens], seen: ForwardTrace, layers: int) -> None:
        """Add the images of a batch.

        Parameters
        ----------
        asked : all of them, in order
        entered : those of which a token entered the language model, as `seen` numbers them
        seen : what the forward pass showed
        layers : of the decoder

        """
        numbers = {id(image): n for n, image in enumerate(entered)}
        for image in asked:
            number = numbers.get(id(image))
            counts = [0] * layers if number is None else seen.per_layer[number]
            later = {} if number is None else seen.kept[number]
            self.images.append(TracedImage(image.original, tuple(counts), image.kept(later)))
