"""What a batch of prompts needs of a GPU's memory, by the sizes of the model and the token counts of the hungriest row."""

from __future__ import annotations

from dataclasses import dataclass

from vtpbench.harness.efficiency.flops import Workload
from vtpbench.harness.models.dimensions import Dimensions

NUMBER_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
ROOM = 1.25
"""Columns that are reserved for keys and values, for each that is written; see `vtpbench.harness.pruning.key_value_cache`."""
LASTING_ROOM = 1.5
"""The same where decoding steps are graphs, for buffers that stay beside the prefixes of shared pictures.

Where few prompts share a picture, and behind a batch of longer answers, it is up to 1.8, for which the memory that is left free
has room.
"""
TOGETHER = 32
"""Tiles that go through the vision tower together."""


@dataclass(frozen=True)
class GpuMemory:
    """Tells bytes for a model.

    Attributes
    ----------
    dimensions : of the model
    number : bytes of a number
    eager : whether attention is computed as a matrix of all pairs
    graphs : whether keys and values lie at addresses that stay, for decoding steps to be replayed

    """

    dimensions: Dimensions
    number: int = 2
    eager: bool = False
    graphs: bool = False

    def at_peak(self, work: Workload, size: int, pictures: int = 1) -> float:
        """Bytes of the weights, a batch's keys and values, what is held of a window's pictures, and one layer's activations.

        Parameters
        ----------
        work : one prompt with one image, as all of the batch are
        size : prompts of the batch
        pictures : whose features and evidence are there

        """
        tower, decoder = self.dimensions.tower, self.dimensions.decoder
        tokens = work.grid.tiles * work.grid.height * work.grid.width
        held = pictures * tokens * (2 * tower.patches * tower.width + decoder.width)  # features, keys as evidence, embeddings
        cached = (LASTING_ROOM if self.graphs else ROOM) * size * self._cached(work)
        activations = max(self._decoding(work, size), self._seeing(work, pictures))
        return self.number * (self.dimensions.parameters + held) + cached + activations

    def _cached(self, work: Workload) -> float:
        """Bytes of the keys and values of one prompt and its answer."""
        decoder = self.dimensions.decoder
        columns = sum(work.per_layer) + decoder.layers * (work.text + work.new)
        return self.number * decoder.cached * columns

    def _decoding(self, work: Workload, size: int) -> float:
        """Bytes of the activations of a layer of the language model, in the prefill of a batch."""
        decoder, columns = self.dimensions.decoder, max(work.per_layer) + work.text
        activations = size * columns * (4 * decoder.width + 3 * decoder.intermediate) * self.number
        pairs = size * decoder.heads * columns**2 if self.eager else 0
        return activations + pairs * (2 * self.number + 4)  # the softmax is taken in 32 bits

    def _seeing(self, work: Workload, pictures: int) -> float:
        """Bytes of the activations of a layer of the vision tower."""
        tower = self.dimensions.tower
        tiles = min(pictures * work.grid.tiles, max(TOGETHER, work.grid.tiles))
        patches = tiles * work.grid.height * work.grid.width * tower.patches
        return patches * (4 * tower.width + tower.matrices * tower.intermediate) * self.number
