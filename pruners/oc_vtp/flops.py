"""Operations of OC-VTP's network, as Table 4 of arXiv 2511.20439 counts them.

Table 4 prints 5.97 GFLOPs for 576 tokens and 23.82 GFLOPs for the 2880 of LLaVA-NeXT. The second figure was evidently
measured with 64 slots although 160 tokens are kept: with 160 slots it is 27.8. Its 6.30 TFLOPs for the unpruned prefill
of LLaVA-1.5 should read 6.31 (`harness/efficiency/flops.py`, convention `table4`, 576 + 32 tokens).
"""

from __future__ import annotations

from vtpbench.pruners.oc_vtp.dims import Dims

NORM, ACTIVATION, SOFTMAX, BIAS = 5, 1, 5, 1
"""Operations for each element, as common profilers count them."""


def products(dims: Dims, tokens: int, slots: int) -> int:
    """Matrix products: projection and keys and values once, then rounds of queries, attention, GRU and feed-forward."""
    d = dims.slots
    once = 2 * tokens * (dims.features * dims.hidden + dims.hidden * d) + 4 * tokens * d**2
    update = 2 * slots * d**2 + 4 * slots * tokens * d + 12 * slots * d**2 + 4 * slots * d * dims.ffn
    return once + dims.iterations * update


def elements(dims: Dims, tokens: int, slots: int) -> int:
    """Norms, activations, softmax and biases."""
    d, rounds = dims.slots, dims.iterations
    norms = tokens * (dims.features + d) + rounds * 2 * slots * d
    activations = tokens * dims.hidden + rounds * slots * dims.ffn
    softmax = rounds * slots * tokens
    biases = tokens * (dims.hidden + d) + rounds * slots * (6 * d + dims.ffn + d)
    return NORM * norms + ACTIVATION * activations + SOFTMAX * softmax + BIAS * biases


def flops(dims: Dims, tokens: int, slots: int) -> int:
    """Everything, as Table 4 counts it."""
    return products(dims, tokens, slots) + elements(dims, tokens, slots)
