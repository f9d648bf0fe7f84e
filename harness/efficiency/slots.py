"""Operations of slot attention, the one pruner whose cost a paper prints: OC-VTP, Table 4 of arXiv 2511.20439.

Table 4 prints 5.97 GFLOPs for 576 tokens and 23.82 GFLOPs for the 2880 of LLaVA-NeXT. The second figure was evidently
measured with 64 slots although 160 tokens are kept: with 160 slots it is 27.8. Its 6.30 TFLOPs for the unpruned prefill
of LLaVA-1.5 should read 6.31 (`flops.count`, convention `table4`, 576 + 32 tokens).
"""

from __future__ import annotations

from dataclasses import dataclass

NORM, ACTIVATION, SOFTMAX, BIAS = 5, 1, 5, 1
"""Operations for each element, as common profilers count them."""


@dataclass(frozen=True)
class SlotAttention:
    """Widths of the network; the defaults are the published ones for CLIP ViT-L/14-336."""

    features: int = 1024
    hidden: int = 2048
    width: int = 512
    ffn: int = 2048
    rounds: int = 3

    def products(self, tokens: int, slots: int) -> int:
        """Matrix products: projection and keys and values once, then rounds of queries, attention, GRU and feed-forward."""
        d = self.width
        once = 2 * tokens * (self.features * self.hidden + self.hidden * d) + 4 * tokens * d**2
        update = 2 * slots * d**2 + 4 * slots * tokens * d + 12 * slots * d**2 + 4 * slots * d * self.ffn
        return once + self.rounds * update

    def elements(self, tokens: int, slots: int) -> int:
        """Norms, activations, softmax and biases."""
        d = self.width
        norms = tokens * (self.features + d) + self.rounds * 2 * slots * d
        activations = tokens * self.hidden + self.rounds * slots * self.ffn
        softmax = self.rounds * slots * tokens
        biases = tokens * (self.hidden + d) + self.rounds * slots * (6 * d + self.ffn + d)
        return NORM * norms + ACTIVATION * activations + SOFTMAX * softmax + BIAS * biases

    def flops(self, tokens: int, slots: int) -> int:
        """Everything, as Table 4 counts it."""
        return self.products(tokens, slots) + self.elements(tokens, slots)
