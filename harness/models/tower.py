"""Evidence from a CLIP-like vision tower: outputs and attention of the named layers only, beside the tower's own kernel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vtpbench.pruners.base import ATTENTION_KINDS, Evidence

_CHUNK = 8  # pictures at a time whose full attention is held in float32


@dataclass
class Seen:
    """What the hooks saw in one pass: outputs of layers, inputs of attention modules and their rotary tables, by module index."""

    outputs: dict[int, Tensor]
    attended: dict[int, Tensor]
    rotary: dict[int, tuple[Tensor, Tensor]]


@contextmanager
def watching(
    layers: nn.ModuleList, outputs: Iterable[int], attended: Iterable[int], attention: str = "self_attn"
) -> Iterator[Seen]:
    """Record the output of some layers and what enters the attention of others; hooks are removed on the way out."""
    seen = Seen({}, {}, {})

    def keep_output(number: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            seen.outputs[number] = output[0] if isinstance(output, tuple) else output

        return hook

    def keep_input(number: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.attended[number] = args[0] if args else kwargs["hidden_states"]
            if "position_embeddings" in kwargs:
                seen.rotary[number] = kwargs["position_embeddings"]

        return hook

    with ExitStack() as stack:
        for number in set(outputs):
            stack.callback(layers[number].register_forward_hook(keep_output(number)).remove)
        for number in set(attended):
            module: Any = getattr(layers[number], attention)
            stack.callback(module.register_forward_pre_hook(keep_input(number), with_kwargs=True).remove)
        yield seen


def tower_evidence(layers: nn.ModuleList, seen: Seen, needs: Iterable[Evidence]) -> dict[Evidence, Tensor]:
    """Evidence per picture over its patches, CLS (token 0) left out; see `Evidence` for the kinds."""
    found: dict[Evidence, Tensor] = {}
    for need in needs:
        if need.kind == "hidden":
            found[need] = seen.outputs[need.layer % len(layers)][:, 1:].float()
        elif need.kind in ATTENTION_KINDS:
            attention: Any = layers[need.layer % len(layers)].self_attn
            hidden = seen.attended[need.layer % len(layers)]
            if need.kind == "keys":
                found[need] = _heads(attention.k_proj(hidden), attention).mean(1)[:, 1:].float()
            else:
                found[need] = torch.cat([_attention(attention, part, need.kind) for part in hidden.split(_CHUNK)])
    return found


def _heads(x: Tensor, attention: Any) -> Tensor:
    heads: Tensor = x.unflatten(-1, (attention.num_heads, attention.head_dim))
    return heads.transpose(1, 2)


def _attention(attention: Any, hidden: Tensor, kind: str) -> Tensor:
    """Mean over heads of the attention on each patch: from CLS, or from all tokens, `(pictures, patches)`."""
    query, key = _heads(attention.q_proj(hidden), attention).float(), _heads(attention.k_proj(hidden), attention).float()
    if kind == "cls":
        query = query[:, :, :1]
    probability: Tensor = (query @ key.transpose(-1, -2) * attention.scale).softmax(-1)
    return probability.mean((1, 2))[:, 1:]
