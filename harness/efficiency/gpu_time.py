"""What one GPU will need for a batch of prompts, by operations, bytes, and how much of a data sheet was reached elsewhere.

A pass through the language model takes as long as its slowest part: the products, the reading of the weights, or the host that
launches it, unless it is replayed as a CUDA graph. Reading the keys and values of what came before adds to the device's part. The
model is as simple as the figures are few: it gives the H200's rates that are known to about a third
(`tests/harness/efficiency/test_gpu_time.py`), and nothing was compared with another GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vtpbench.harness.efficiency.flops import Workload, count
from vtpbench.harness.efficiency.gpus import Gpu, Reached
from vtpbench.harness.models.dimensions import Dimensions
from vtpbench.harness.pruning.prefill import LARGEST
from vtpbench.harness.pruning.question_rows import MOST

BYTES = 2
"""Of a number, 16-bit."""
FILLED = 0.85
"""How much of the rows behind prefixes is questions, which differ in length and in number from picture to picture (supposed)."""

ALL = slice(None)


@dataclass(frozen=True)
class TypicalPrompt:
    """One prompt with one image, and its answer.

    Attributes
    ----------
    work : its vision tokens and operations; `text` is all text, `new` the tokens of the answer
    before : text tokens before the image
    shared_by : prompts of a batch that are asked behind one prefill of what precedes the question; 1 = prefilled whole
    graphs : whether decoding steps, and prefills that are small enough, are replayed as CUDA graphs
    cached : whether what is `before` is prefilled once for all prompts
    layers : decoder layers that prompts share, before the first in which tokens leave; None = all

    """

    work: Workload
    before: int
    shared_by: float = 1.0
    graphs: bool = False
    cached: bool = False
    layers: int | None = None

    @property
    def system(self) -> int:
        """Tokens that no pass over prompts takes."""
        return self.before if self.cached else 0


@dataclass(frozen=True)
class GpuClock:
    """Tells seconds for a model on a GPU."""

    gpu: Gpu
    reached: Reached
    dimensions: Dimensions

    def tower(self, work: Workload) -> float:
        """Seconds of the vision tower for one picture among many."""
        return count(self.dimensions, work).vision / (self.reached.tower * self.gpu.tflops * 1e12)

    def batch(self, prompt: TypicalPrompt, size: int) -> float:
        """Seconds of the language model for a batch of prompts that are alike, from the embeddings to the last token."""
        whole = count(self.dimensions, prompt.work)
        cached = size * self._cached(prompt.work, prompt.work.text, ALL)
        steps = sum(self._pass(size * flops, cached, self.reached.step_cache, replayed=prompt.graphs) for flops in whole.decode)
        alone = self._first(prompt, size, prompt.work.text, ALL)
        if prompt.shared_by <= 1:
            return alone + steps
        first = self._first(prompt, size / prompt.shared_by, prompt.before, slice(prompt.layers))
        rows = min(size, size / (FILLED * min(prompt.shared_by, MOST)))
        return min(alone, first + self.questions(prompt, size / FILLED, rows, size)) + steps

    def _first(self, prompt: TypicalPrompt, rows: float, text: int, layers: slice) -> float:
        """Seconds of the pass of so many rows of vision tokens and text through layers, with what is cached for all."""
        small = rows * (max(prompt.work.per_layer) + text - prompt.system) <= LARGEST
        flops, cached = self._whole(prompt, text, layers), self._system(prompt, layers)
        part = len(prompt.work.per_layer[layers]) / len(prompt.work.per_layer)
        return self._pass(rows * flops, rows * cached, self.reached.prefix_cache, part, replayed=prompt.graphs and small)

    def questions(self, prompt: TypicalPrompt, size: float, rows: float, prompts: float = 0.0) -> float:
        """Seconds of one pass over so many questions in so many rows, each behind a prefix of its own.

        Where tokens leave inside, so many prompts go on whole from that layer.
        """
        shared = slice(prompt.layers)
        own = self._prefill(prompt.work, prompt.work.text, shared) - self._prefill(prompt.work, prompt.before, shared)
        flops, cached = size * own, rows * self._cached(prompt.work, prompt.before, shared)
        if prompt.layers is not None:
            behind = slice(prompt.layers, None)
            flops += prompts * self._whole(prompt, prompt.work.text, behind)
            cached += prompts * self._system(prompt, behind)
        return self._pass(flops, cached, self.reached.prefix_cache)

    def _whole(self, prompt: TypicalPrompt, text: int, layers: slice) -> float:
        """Operations of layers over a prompt's vision tokens and so much text, without those for what is cached for all."""
        return self._prefill(prompt.work, text, layers) - self._prefill(_without_image(prompt.work), prompt.system, layers)

    def _system(self, prompt: TypicalPrompt, layers: slice) -> float:
        """Bytes of what layers have cached for all prompts."""
        return self._cached(_without_image(prompt.work), prompt.system, layers)

    def _prefill(self, work: Workload, text: int, layers: slice) -> float:
        """Operations of layers over a prompt's vision tokens and so much text."""
        flops = count(self.dimensions, replace(work, text=text))
        return (0 if layers.start else flops.projector) + sum(flops.prefill[layers]) + (flops.head if text else 0)

    def _cached(self, work: Workload, text: int, layers: slice) -> float:
        """Bytes of the keys and values of one prompt's tokens in layers."""
        return BYTES * self.dimensions.decoder.cached * sum(vision + text for vision in work.per_layer[layers])

    def _pass(self, flops: float, cached: float, share: float, part: float = 1.0, *, replayed: bool = False) -> float:
        """Seconds of a pass through a part of the layers."""
        bandwidth = self.gpu.tb_per_s * 1e12
        products = flops / (self.reached.products * self.gpu.tflops * 1e12)
        weights = part * BYTES * self.dimensions.decoder.parameters / (self.reached.weights * bandwidth)
        device = max(products, weights) + cached / (share * bandwidth)
        return device if replayed else max(device, part * self.reached.launch_ms / 1000)


def _without_image(work: Workload) -> Workload:
    return replace(work, per_layer=(0,) * len(work.per_layer))
