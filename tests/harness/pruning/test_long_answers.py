"""Long answers behind cuts inside the decoder equal those of a model that computes everything anew, without a cache.

Plain steps: the whole sequence, prompt and answer, goes through the layers at once, and loses at each cut the tokens that the
trace names. By causality each logit is then what a pass over the sequence up to there would give.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vtpbench.harness.models.family import Family
from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.pruning.batch import PromptBatch
from vtpbench.harness.pruning.decoder_hooks import ForwardTrace
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.pruners.registry import build

CASES = [
    ("llava", "fastv", {}, 64),
    ("llava_next", "fastv", {}, 64),
    ("qwen2_5_vl", "fastv", {}, 64),
    ("llava", "pyramiddrop", {"positions": "keep"}, 64),
    ("llava_next", "pyramiddrop", {}, 64),
    ("qwen2_5_vl", "pyramiddrop", {"positions": "keep"}, 64),
    ("llava", "sparsevlm", {"version": "2"}, 64),
    ("llava", "pyramiddrop", {}, 512),
    ("llava", "vanilla", {}, 64),
]


def endless(name: str) -> Family:
    """Build a tiny model that never ends an answer by itself."""
    family = TINY[name]()
    family.model.generation_config.eos_token_id = None
    return family


@torch.inference_mode()
def recomputed(family: Family, batch: PromptBatch, trace: ForwardTrace, row: int, answer: Tensor, renumber: bool) -> Tensor:
    """Logits before each token of an answer, `(tokens, vocabulary)`, of a pass over one row alone that keeps no cache."""
    decoder: Any = family.decoder
    prompt = batch.layout.lengths[row]
    left = batch.layout.width - prompt
    hidden = torch.cat([batch.embeds[row, left:], family.model.get_input_embeddings()(answer)])[None]
    own = batch.positions[..., row : row + 1, left:]
    positions = torch.cat([own, own[..., -1:] + 1 + torch.arange(len(answer))], dim=-1)
    columns = torch.arange(hidden.shape[1])
    for number, layer in enumerate(decoder.layers):
        alive = torch.ones(len(columns), dtype=torch.bool)
        for image, place in batch.layout.places.items():
            if place.row == row and number > 0 and number in trace.kept[image]:
                stays = torch.isin(batch.images[image].index, trace.kept[image][number])
                gone = place.start - left + (~stays).nonzero().flatten()
                alive &= ~torch.isin(columns, gone)
        if not alive.all():
            hidden, columns = hidden[:, alive], columns[alive]
            positions = torch.arange(len(columns))[None] if renumber else positions[..., alive]
        seen = torch.full((len(columns), len(columns)), torch.finfo(hidden.dtype).min).triu(1)
        rotary = decoder.rotary_emb(hidden, position_ids=positions)
        made = layer(hidden, attention_mask=seen[None, None], position_embeddings=rotary, use_cache=False)
        hidden = made[0] if isinstance(made, tuple) else made
    logits: Tensor = family.model.lm_head(decoder.norm(hidden))
    return logits[0, -len(answer) - 1 : -1]


@pytest.mark.parametrize(("name", "pruner", "options", "steps"), CASES, ids=lambda case: str(case))
def test_a_long_answer_is_that_of_a_recomputation_without_a_cache(
    name: str, pruner: str, options: dict[str, str], steps: int, tools: Any
) -> None:
    family, method = endless(name), build(pruner, options)
    batch = tools.prepare(family, method, None if pruner == "vanilla" else 0.5, tools.MIXED)
    said: list[Tensor] = []
    handle = family.model.lm_head.register_forward_hook(lambda module, args, output: said.append(output[:, -1].clone()))
    texts, trace = Pipeline(family).generate(batch, steps)
    handle.remove()
    assert trace.written == [steps] * len(tools.MIXED)
    found = torch.stack(said, dim=1)
    tokens = found.argmax(-1)
    assert texts == family.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    cuts = {at for kept in trace.kept.values() for at in kept if at > 0}
    assert bool(cuts) == (pruner != "vanilla")
    for row, answer in enumerate(tokens):
        expected = recomputed(family, batch, trace, row, answer, renumber=method.position_rule == "renumber")
        assert torch.allclose(found[row], expected, atol=1e-4)
        assert torch.equal(expected.argmax(-1), answer)
