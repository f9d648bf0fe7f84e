"""Evidence from inside the decoder: attention rows of one layer, computed beside whatever kernel the model uses.

Only the rows that a pruner asked for are computed, from the queries of those tokens and the layer's own keys; no layer runs
twice and no layer returns its attention map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vtpbench.harness.pruning.batch import PromptBatch
from vtpbench.harness.pruning.layout import PromptLayout
from vtpbench.harness.pruning.system_prompt import SystemPrompt, prepend_valid
from vtpbench.pruners.base import TEXT_KINDS, Evidence, TextView
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.transfer import copy_to_device

if TYPE_CHECKING:
    from torch import Tensor, nn

_CHUNK = 256  # query rows at a time where all rows are averaged: bounds memory, changes no result


@dataclass(frozen=True)
class LayerInput:
    """The state just before decoder layer `number`.

    Attributes
    ----------
    layers : all decoder layers
    hidden : (rows, width, dim) about to enter layer `number`
    previous : (rows, width, dim) what entered layer `number - 1`
    cache : the key-value cache or None
    layout : where what stands
    rotary : cosine and sine, (rows, width, head dim)
    final_norm : the model's, behind its last layer
    angles : (rows, width, head dim) float32 cosines, then sines, of the rotary angles; None unless asked for
    system : what is cached before the first column, or None

    """

    layers: Sequence[nn.Module]
    number: int
    hidden: Tensor
    previous: Tensor | None
    cache: Any
    layout: PromptLayout
    rotary: tuple[Tensor, Tensor]
    final_norm: nn.Module
    angles: Tensor | None = None
    system: SystemPrompt | None = None

    @property
    def before(self) -> int:
        """Columns that are cached before the first."""
        return 0 if self.system is None else len(self.system)

    def entered(self, layer: int) -> Tensor:
        """Hidden states that entered layer `number + layer`."""
        if layer == 0:
            return self.hidden
        assert self.previous is not None, "evidence reaches one layer back, where a cut is due"
        return self.previous

    def keys(self, layer: int) -> Tensor:
        """Rotated keys of layer `number + layer`, `(rows, key heads, width, head dim)`."""
        if layer == -1 and self.cache is not None:
            cached: Tensor = self.cache.layers[self.number - 1].keys
            return cached[:, :, self.before :]
        module: Any = self.layers[self.number + layer]
        normed = self._normed[layer] = module.input_layernorm(self.entered(layer))
        return self._project(module, module.self_attn.k_proj, "k_norm", normed, self.rotary)

    def queries(self, layer: int, rows: Tensor, columns: Tensor) -> Tensor:
        """Rotated queries of some tokens, rows `(m, 1)` and columns `(m, r)`, as `(m, heads, r, head dim)`."""
        module: Any = self.layers[self.number + layer]
        rotary = (self.rotary[0][rows, columns], self.rotary[1][rows, columns])
        whole = self._normed.get(layer)
        normed = module.input_layernorm(self.entered(layer)[rows, columns]) if whole is None else whole[rows, columns]
        return self._project(module, module.self_attn.q_proj, "q_norm", normed, rotary)

    @cached_property
    def _normed(self) -> dict[int, Tensor]:
        """By layer, what its attention gets, where keys were made of it."""
        return {}

    @staticmethod
    def _project(module: Any, projection: nn.Module, norm: str, normed: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        x: Tensor = projection(normed).unflatten(-1, (-1, module.self_attn.head_dim))
        if hasattr(module.self_attn, norm):
            x = getattr(module.self_attn, norm)(x)
        x = x.transpose(1, 2)
        left, right = x.chunk(2, dim=-1)
        cosine, sine = rotary[0].unsqueeze(1), rotary[1].unsqueeze(1)
        return x * cosine + torch.cat([-right, left], dim=-1) * sine

    def attention(self, layer: int, rows: Tensor, columns: Tensor) -> Tensor:
        """Post-softmax attention of some tokens over all columns, `(m, heads, r, width)` float32.

        What is cached before them takes its share of it.
        """
        key, query = self.keys(layer)[rows[:, 0]], self.queries(layer, rows, columns)
        if self.system is not None:
            keys, _ = self.system.cached[self.number + layer]
            key = torch.cat([keys.expand(len(key), -1, -1, -1), key], dim=2)
        grouped: Tensor = query.float().unflatten(1, (key.shape[1], -1))
        logits: Tensor = torch.einsum("mkgrd,mkld->mkgrl", grouped, key.float()).flatten(1, 2) * query.shape[-1] ** -0.5
        unseen: Tensor = torch.arange(key.shape[2], device=key.device) > self.before + columns[:, :, None]
        if self.layout.padded:
            unseen = unseen | ~prepend_valid(self.before, self.layout.valid(key.device))[rows[:, 0], None, :]
        attention = logits.masked_fill(unseen[:, None], float("-inf")).softmax(-1)[..., self.before :]
        return attention.nan_to_num() if self.layout.padded else attention  # padding rows see nothing


def decoder_evidence(
    needs: frozenset[Evidence], arrival: LayerInput, images: Sequence[int], batch: PromptBatch
) -> dict[Evidence, Tensor]:
    """Collect what a pruner wants to see of some images with equally many tokens."""
    device = arrival.hidden.device
    rows, columns = arrival.layout.columns(images, device)
    found: dict[Evidence, Tensor] = {}
    for need in needs:
        if need.kind == "row":
            last = torch.full_like(rows, arrival.layout.width - 1)
            found[need] = arrival.attention(need.layer, rows, last)[:, :, 0].mean(1).gather(1, columns)
        elif need.kind == "rows_mean":
            found[need] = _mean_of_rows(need.layer, arrival, rows).gather(1, columns)
        elif need.kind == "text":
            text, _ = arrival.layout.text_after(images, device)
            attention = arrival.attention(need.layer, rows, text)
            found[need] = attention.gather(3, columns[:, None, None, :].expand(*attention.shape[:3], -1))
        elif need.kind == "embeddings":
            found[need] = batch.embeds[batch.layout.columns(images, device)].float()
        else:
            found[need] = _of_tokens(need, arrival, rows, columns)
    return found


def text_after(needs: frozenset[Evidence], arrival: LayerInput, images: Sequence[int], batch: PromptBatch) -> TextView | None:
    """Collect what a pruner wants to see of the text after some images; None where no evidence has to do with text."""
    kinds = {need.kind for need in needs}
    if not kinds & (TEXT_KINDS | {"text"}):
        return None
    device = arrival.hidden.device
    rows, _ = arrival.layout.columns(images, device)
    columns, real = arrival.layout.text_after(images, device)
    found: dict[Evidence, Tensor] = {}
    for need in needs:
        if need.kind == "embeddings":  # the text is as long as at the entry, and ends where the prompt ends
            found[need] = batch.embeds[rows, columns - arrival.layout.width].float()
        elif need.kind in TEXT_KINDS:
            found[need] = _of_tokens(need, arrival, rows, columns)
    return TextView(real, found)


def _of_tokens(need: Evidence, arrival: LayerInput, rows: Tensor, columns: Tensor) -> Tensor:
    """Collect evidence that any token has, of rows `(m, 1)` and columns `(m, r)`: `(m, r, ...)` float32."""
    if need.kind == "layer_keys":
        return arrival.keys(need.layer).transpose(1, 2).flatten(2)[rows, columns].float()
    if need.kind == "rotary":
        assert arrival.angles is not None
        return arrival.angles[rows, columns]
    states = arrival.hidden[rows, columns]
    normed: Tensor = arrival.final_norm(states) if need.kind == "normed" else states
    return normed.float()


def _mean_of_rows(layer: int, arrival: LayerInput, rows: Tensor) -> Tensor:
    """Mean attention over all heads and all query rows of each prompt, `(m, width)`."""
    width = arrival.layout.width
    total = torch.zeros(rows.shape[0], width, device=rows.device)
    for start in range(0, width, _CHUNK):
        columns = torch.arange(start, min(start + _CHUNK, width), device=rows.device).expand(rows.shape[0], -1)
        attention = arrival.attention(layer, rows, columns).mean(1)
        real = arrival.layout.valid(rows.device)[rows, columns]
        total += (attention * real[:, :, None]).sum(1)
    rows_of_each = torch.tensor(arrival.layout.lengths) + arrival.before  # of what is before, they see nothing of the columns
    lengths = copy_to_device(rows_of_each, rows.device)
    return total / lengths[rows[:, 0], None]
