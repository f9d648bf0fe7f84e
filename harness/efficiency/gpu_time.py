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

    """

    work: Workload
    before: int
    shared_by: float = 1.0
    graphs: bool = False
    cached: bool = False

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
        cached = size * self._cached(prompt.work, prompt.work.text)
        steps = sum(self._pass(size * flops, cached, self.reached.step_cache, replayed=prompt.graphs) for flops in whole.decode)
        alone = self._first(prompt, size, prompt.work.text)
        if prompt.shared_by <= 1:
            return alone + steps
        first = self._first(prompt, size / prompt.shared_by, prompt.before)
        rows = min(size, size / (FILLED * min(prompt.shared_by, MOST)))
        return min(alone, first + self.questions(prompt, size / FILLED, rows)) + steps

    def _first(self, prompt: TypicalPrompt, rows: float, text: int) -> float:
        """Seconds of the pass over so many rows of vision tokens and text, with what is cached for all."""
        work, system = prompt.work, prompt.system
        nothing = replace(work, per_layer=(0,) * len(work.per_layer))
        flops, cached = self._prefill(work, text), 0.0
        if system:
            flops, cached = flops - self._prefill(nothing, system), self._cached(nothing, system)
        small = rows * (max(work.per_layer) + text - system) <= LARGEST
        return self._pass(rows * flops, rows * cached, self.reached.prefix_cache, replayed=prompt.graphs and small)

    def questions(self, prompt: TypicalPrompt, size: float, rows: float) -> float:
        """Seconds of one pass over so many questions in so many rows, each behind a prefix of its own."""
        own = self._prefill(prompt.work, prompt.work.text) - self._prefill(prompt.work, prompt.before)
        return self._pass(size * own, rows * self._cached(prompt.work, prompt.before), self.reached.prefix_cache)

    def _prefill(self, work: Workload, text: int) -> float:
        """Operations of the pass over a prompt's vision tokens and so much text."""
        flops = count(self.dimensions, replace(work, text=text))
        return flops.projector + sum(flops.prefill) + flops.head

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
