"""Evidence from a CLIP-like vision tower: outputs and attention of the named layers only, beside the tower's own kernel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vtpbench.pruners.base import ATTENTION_KINDS, Evidence
from vtpbench.pruners.errors import Unsupported
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

_CHUNK = 8  # pictures at a time whose full attention is held in float32


@dataclass(frozen=True)
class AttentionNames:
    """Names of a layer's attention module and, in it, of the modules whose outputs are queries and keys."""

    module: str = "self_attn"
    query: str = "q_proj"
    key: str = "k_proj"

    @property
    def projections(self) -> tuple[str, str]:
        """Modules whose outputs are recorded."""
        return self.query, self.key


CLIP_NAMES = AttentionNames()


@dataclass
class RecordedActivations:
    """What the hooks saw in one pass, by module index of the layer.

    Attributes
    ----------
    outputs : of layers
    projected : of the linear maps inside attention modules, by layer and name
    masks : what was added to attention logits, or None
    rotary : tables that attention modules got

    """

    outputs: dict[int, Tensor] = field(default_factory=dict)
    projected: dict[tuple[int, str], Tensor] = field(default_factory=dict)
    masks: dict[int, Tensor | None] = field(default_factory=dict)
    rotary: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


@contextmanager
def record_activations(
    layers: Sequence[nn.Module],
    outputs: Iterable[int],
    attended: Iterable[int],
    attention: str = "self_attn",
    projections: Sequence[str] = ("q_proj", "k_proj"),
) -> Iterator[RecordedActivations]:
    """Record the output of some layers, and queries and keys of others as they are computed; hooks are removed afterwards."""
    seen = RecordedActivations()

    def keep_output(number: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            seen.outputs[number] = output[0] if isinstance(output, tuple) else output

        return hook

    def keep_projected(number: int, name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            seen.projected[number, name] = output

        return hook

    def keep_call(number: int) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            seen.masks[number] = kwargs.get("attention_mask")
            if "position_embeddings" in kwargs:
                seen.rotary[number] = kwargs["position_embeddings"]

        return hook

    with ExitStack() as stack:
        for number in set(outputs):
            stack.callback(layers[number].register_forward_hook(keep_output(number)).remove)
        for number in set(attended):
            module: Any = getattr(layers[number], attention)
            stack.callback(module.register_forward_hook(keep_call(number), with_kwargs=True).remove)
            for name in projections:
                stack.callback(getattr(module, name).register_forward_hook(keep_projected(number, name)).remove)
        yield seen


def encoder_evidence(
    layers: Sequence[nn.Module],
    seen: RecordedActivations,
    needs: Iterable[Evidence],
    names: AttentionNames = CLIP_NAMES,
    prefix: int = 1,
) -> dict[Evidence, Tensor]:
    """Evidence per picture over its patches; see `Evidence` for the kinds.

    The tower's first `prefix` tokens are left out: 1 is CLS, 0 a tower without it, which has no attention of CLS and raises
    `Unsupported` for it.
    """
    found: dict[Evidence, Tensor] = {}
    for need in needs:
        number = need.layer % len(layers)
        if need.kind == "hidden":
            found[need] = seen.outputs[number][:, prefix:].float()
        elif need.kind in ATTENTION_KINDS:
            projected = seen.projected[number, names.query], seen.projected[number, names.key]
            module = getattr(layers[number], names.module)
            found[need] = _of_attention(module, projected, seen.masks[number], need.kind, prefix)
    return found


def _of_attention(attention: Any, whole: tuple[Tensor, Tensor], mask: Tensor | None, kind: str, prefix: int) -> Tensor:
    """Evidence of an attention module, from its queries and keys."""
    if prefix == 0 and kind in ("cls", "cls_one_head"):
        raise Unsupported("the vision tower has no CLS token, whose attention is asked for")
    if kind == "keys_all_heads":
        return whole[1][:, prefix:].float()
    if kind == "cls_one_head":
        return _attention(whole[0][:, None, :1], whole[1][:, None], mask, whole[0].shape[-1] ** -0.5, prefix)
    query, key = (_heads(x, attention) for x in whole)
    if kind == "keys":
        return key.mean(1, dtype=torch.float32)[:, prefix:]
    return _attention(query[:, :, :1] if kind == "cls" else query, key, mask, attention.scale, prefix)


def _heads(x: Tensor, attention: Any) -> Tensor:
    heads: Tensor = x.unflatten(-1, (attention.num_heads, attention.head_dim))
    return heads.transpose(1, 2)


def _attention(query: Tensor, key: Tensor, mask: Tensor | None, scale: float, prefix: int) -> Tensor:
    """Mean over heads and queries of the attention on each patch, `(pictures, patches)`."""
    found = []
    for start in range(0, len(query), _CHUNK):
        part = slice(start, start + _CHUNK)
        logits = query[part].float() @ key[part].float().mT * scale
        if mask is not None:
            logits = logits + mask[part].float()
        found.append(logits.softmax(-1).mean((1, 2))[:, prefix:])
    return torch.cat(found) if len(found) > 1 else found[0]
