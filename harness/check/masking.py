"""The reference for removal: nothing leaves, but from its cut on a token is hidden from all others."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vtpbench.harness.check.subject import ProbeRun
from vtpbench.harness.models.family import Family
from vtpbench.harness.pruning.batch import PromptBatch


@torch.inference_mode()
def masked_logits(family: Family, full: PromptBatch, run: ProbeRun) -> Tensor:
    """Logits of the answer of `run` where the tokens that it removed are masked instead, `(steps, vocabulary)`.

    One forward pass without a cache over the full prompt and the answer's tokens, so that it also judges the decoding
    steps. `full` and `run` hold the same prompt with one image.
    """
    steps, device = len(run.logits), family.device
    answer = run.logits[:-1, 0].argmax(-1)
    embeds = torch.cat([full.embeds, family.model.get_input_embeddings()(answer)[None]], dim=1)
    place, image = full.layout.places[0], full.images[0]
    seen: dict[int, Tensor] = {}  # by cut: which columns are left
    for at, kept in run.trace.kept[0].items():
        seen[at] = torch.ones(embeds.shape[1], dtype=torch.bool, device=device)
        seen[at][place.start : place.start + place.length] = torch.isin(image.index, kept)
    later = run.batch.positions[..., -1:] + torch.arange(1, steps, device=device)
    positions = full.positions.new_zeros(*full.positions.shape[:-1], embeds.shape[1])
    positions[..., seen[0]] = torch.cat([run.batch.positions, later], dim=-1)
    renumber = run.pruner.position_rule == "renumber"
    with ExitStack() as hooks:
        for number, layer in enumerate(family.decoder.layers):  # type: ignore[arg-type] # nn.Module types its attributes loosely
            at = max(cut for cut in seen if cut <= number)
            hook = partial(_hide, seen[at], family.decoder if renumber and at > 0 else None)
            hooks.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
        more = family.stock_arguments(full, embeds.shape[1])
        output = family.decoder(inputs_embeds=embeds, position_ids=positions, use_cache=False, **more)
    logits: Tensor = family.model.get_output_embeddings()(output.last_hidden_state[0, -steps:])
    return logits.float()


def _hide(
    seen: Tensor, renumbering: Any, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give a decoder layer a mask that shows columns `seen` alone and, where wanted, positions counted over them."""
    del module
    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    width = len(seen)
    visible = torch.ones(width, width, dtype=torch.bool, device=seen.device).tril() & seen
    mask = torch.zeros(1, 1, width, width, dtype=hidden.dtype, device=seen.device)
    changed: dict[str, Any] = {"attention_mask": mask.masked_fill(~visible, torch.finfo(hidden.dtype).min)}
    if renumbering is not None:
        positions = (seen.cumsum(0) - 1).clamp(min=0)[None]
        changed["position_embeddings"] = renumbering.rotary_emb(hidden, position_ids=positions)
    return args, {**kwargs, **changed}
