"""What cuts inside the language model see, and the masks that they leave behind."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from vtpbench.harness.pruning.decoder_hooks import decoder_hooks
from vtpbench.harness.pruning.layout import PromptLayout, Span
from vtpbench.harness.pruning.sequence import prefill_mask, step_mask
from vtpbench.pruners.base import Cut, Evidence, Pruner, Selection
from vtpbench.pruners.registry import build

ENTERED = Evidence("embeddings")
SEEN: list[tuple[int, int]] = []


@dataclass(frozen=True)
class Uneven(Pruner):
    """Keeps fewer tokens of an image the higher its number, then the same number of all."""

    def needs(self, shape):
        return frozenset({ENTERED})

    def cuts(self, budget, n, shape):
        return (Cut(0, 8), Cut(1, 4), Cut(2, 3))

    def reduce(self, view):
        index = torch.arange(view.cut.keep).expand(len(view.keys), -1)
        if view.cut.at == 0:
            return Selection(index, valid=index < torch.tensor([[8 - n] for n in range(len(view.keys))]))
        SEEN.extend((view.n, view.evidence[ENTERED].shape[1]) for _ in view.keys)
        return Selection(index)


def test_images_that_entered_with_unequal_counts_are_cut_apart(tiny, tools) -> None:
    SEEN.clear()
    batch = tools.prepare(tiny("llava"), Uneven(), 0.5, tools.MIXED)
    tools.forward(tiny("llava"), batch)
    assert sorted(SEEN) == [(4, 5), (4, 6), (4, 7), (4, 8), (5, 5), (6, 6), (7, 7), (8, 8)]


def test_flash_attention_is_never_told_positions(tiny, tools) -> None:
    """It takes gaps in them for the ends of packed prompts, reads them in every layer, and runs another kernel."""
    family, told = tiny("llava"), []
    pruner, config = build("fastv", {}), SimpleNamespace(_attn_implementation="flash_attention_2")
    decoder = SimpleNamespace(
        config=config, layers=family.decoder.layers, rotary_emb=family.decoder.rotary_emb, norm=family.decoder.norm
    )
    batch = tools.prepare(family, pruner, 0.5, tools.MIXED[:1])
    expected, _ = tools.forward(family, batch)
    layers = [layer.self_attn for layer in family.decoder.layers]
    note = lambda module, args, kwargs: told.append(kwargs["position_ids"])  # noqa: E731 - one line
    handles = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    with torch.inference_mode(), decoder_hooks(decoder, batch):
        output = family.model(inputs_embeds=batch.embeds, position_ids=batch.positions, use_cache=True)
    for handle in handles:
        handle.remove()
    assert told == [None] * len(layers)
    assert torch.equal(output.logits, expected)


@pytest.mark.parametrize("lengths", [(3, 3), (3, 2)])
def test_flash_attention_gets_a_flag_per_column_and_only_for_padding(lengths: tuple[int, int]) -> None:
    layout = PromptLayout(tuple((Span(length),) for length in lengths))
    mask = prefill_mask(None, layout, torch.device("cpu"), flash=True)
    step = step_mask(None, layout, 1, torch.device("cpu"), flash=True)
    assert (None if mask is None else mask.tolist()) == (None if lengths == (3, 3) else [[True] * 3, [False, True, True]])
    assert (None if step is None else step.tolist()) == (None if lengths == (3, 3) else [[True] * 4, [False, True, True, True]])
