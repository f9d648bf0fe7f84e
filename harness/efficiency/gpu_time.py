"""What one GPU will need for a batch of prompts, by operations, bytes, and how much of a data sheet was reached elsewhere.

A pass through the language model takes as long as its slowest part: the products, the reading of the weights, or the host that
launches it, unless it is replayed as a CUDA graph. Reading the keys and values of what came before adds to the device's part. The
model is as simple as the figures are few: it gives the H200's rates that are known to about a third
(`tests/harness/efficiency/test_gpu_time.py`), and nothing was compared with another GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from vtpbench.harness.efficiency.flops import Flops, Workload, count
from vtpbench.harness.efficiency.gpus import Gpu, Reached
from vtpbench.harness.models.dimensions import Dimensions
from vtpbench.harness.pruning.prefill import LARGEST
from vtpbench.harness.pruning.question_rows import MOST

BYTES = 2
"""Of a number, 16-bit."""
FILLED = 0.85
"""How much of the rows behind prefixes is questions, which differ in length and in number from picture to picture (supposed)."""


@dataclass(frozen=True)
class TypicalPrompt:
    """One prompt with one image, and its answer.

    Attributes
    ----------
    work : its vision tokens and operations; `text` is all text, `new` the tokens of the answer
    before : text tokens before the image
    shared_by : prompts of a batch that are asked behind one prefill of what precedes the question; 1 = prefilled whole
    graphs : whether decoding steps, and prefills that are small enough, are replayed as CUDA graphs

    """

    work: Workload
    before: int
    shared_by: float = 1.0
    graphs: bool = False


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
        cached = size * self._cached(prompt.work, prompt.work.text)
        steps = sum(self._pass(size * flops, cached, self.reached.step_cache, replayed=prompt.graphs) for flops in whole.decode)
        tokens = max(prompt.work.per_layer)
        small = size * (tokens + prompt.work.text) <= LARGEST
        alone = self._pass(size * _prefill(whole), 0.0, 1.0, replayed=prompt.graphs and small)
        if prompt.shared_by <= 1:
            return alone + steps
        pictures = size / prompt.shared_by
        small = pictures * (tokens + prompt.before) <= LARGEST
        first = self._pass(pictures * self._prefix(prompt), 0.0, 1.0, replayed=prompt.graphs and small)
        rows = min(size, size / (FILLED * min(prompt.shared_by, MOST)))
        return min(alone, first + self.questions(prompt, size / FILLED, rows)) + steps

    def questions(self, prompt: TypicalPrompt, size: float, rows: float) -> float:
        """Seconds of one pass over so many questions in so many rows, each behind a prefix of its own."""
        own = _prefill(count(self.dimensions, prompt.work)) - self._prefix(prompt)
        return self._pass(size * own, rows * self._cached(prompt.work, prompt.before), self.reached.prefix_cache)

    def _prefix(self, prompt: TypicalPrompt) -> float:
        """Operations of the pass over what precedes a question."""
        own = Workload(prompt.work.grid, prompt.work.per_layer, prompt.before, tower=prompt.work.tower)
        return _prefill(count(self.dimensions, own))

    def _cached(self, work: Workload, text: int) -> float:
        """Bytes of the keys and values of one prompt's tokens."""
        decoder = self.dimensions.decoder
        return BYTES * decoder.cached * (sum(work.per_layer) + decoder.layers * text)

    def _pass(self, flops: float, cached: float, share: float, *, replayed: bool = False) -> float:
        bandwidth = self.gpu.tb_per_s * 1e12
        products = flops / (self.reached.products * self.gpu.tflops * 1e12)
        weights = BYTES * self.dimensions.decoder.parameters / (self.reached.weights * bandwidth)
        device = max(products, weights) + cached / (share * bandwidth)
        return device if replayed else max(device, self.reached.launch_ms / 1000)


def _prefill(flops: Flops) -> float:
    return flops.projector + sum(flops.prefill) + flops.head
