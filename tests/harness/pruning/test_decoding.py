"""The greedy loop gives what `generate` of transformers gives, and asks the device as rarely as it says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from pretended_gpu import moved, pretended_gpu
from pruner_options import DECODERS, options_for
from torch import Tensor
from transformers import DynamicCache, GenerationConfig

from vtpbench.harness.models.family import Family
from vtpbench.harness.models.tiny import TINY, tiny_llava
from vtpbench.harness.pruning.batch import PromptBatch
from vtpbench.harness.pruning.decoder_hooks import decoder_hooks, layer_hooks
from vtpbench.harness.pruning.decoding import LATEST, decode
from vtpbench.harness.pruning.key_value_cache import ROOM, buffered, repeat
from vtpbench.harness.pruning.pipeline import Pipeline, Prompt
from vtpbench.harness.pruning.shared_prefix import prefill_whole
from vtpbench.pruners.registry import build

QUESTIONS = ["What?", "Is there a thing in the picture, or is there none?", "Hm?"]
LONG = ROOM + 7
"""More tokens than buffers have room for when they are made."""


def pipeline(model: Family, name: str) -> Pipeline:
    pruner = build(name, options_for(name, model.shape.family))
    return Pipeline(model, pruner, (lambda n: None) if name == "vanilla" else (lambda n: n // 2))


def batch_of(pipeline: Pipeline, tools: Any, questions: list[str]) -> PromptBatch:
    left = pipeline.select(pipeline.encode([tools.picture(40, 30, n) for n in range(len(questions))]), questions)
    return pipeline.assemble(questions, [[left[n]] for n in range(len(questions))])


def stock(model: Family, batch: PromptBatch, new: int) -> list[list[int]]:
    settings = GenerationConfig(max_new_tokens=new, do_sample=False, pad_token_id=model.tokenizer.pad_token_id)
    valid = batch.layout.valid(model.device)
    with decoder_hooks(model.decoder, batch):
        tokens = model.model.generate(
            inputs_embeds=batch.embeds, position_ids=batch.positions, attention_mask=valid.long(), generation_config=settings
        )
    return tokens.tolist()


def own(model: Family, batch: PromptBatch, new: int, *, static: bool = False) -> list[list[int]]:
    begun = prefill_whole(model, batch, partial(buffered, model.shape.decoder_layers))
    with torch.inference_mode(), layer_hooks(model.decoder, lambda: begun.pruning):
        return decode(model, begun.start, begun.logits, new, static=static).tokens


def padded(tokens: list[list[int]], padding: int) -> list[list[int]]:
    longest = max(map(len, tokens))
    return [row + [padding] * (longest - len(row)) for row in tokens]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["vanilla", "random", "fastv", "pyramiddrop", "sparsevlm"])
@pytest.mark.parametrize("family", DECODERS)
def test_tokens_are_those_of_stock_generate(family: str, name: str, attention: str, tools: Any) -> None:
    model = TINY[family](attention)
    lane = pipeline(model, name)
    for questions in (QUESTIONS, QUESTIONS[:1]):  # padded, and without padding
        batch = batch_of(lane, tools, questions)
        free = stock(model, batch, LONG)
        assert padded(own(model, batch, LONG), model.tokenizer.pad_token_id) == free
        ends = sorted({row[2 + 5 * n] for n, row in enumerate(free)})  # answers then end here and there
        before, model.model.generation_config.eos_token_id = model.model.generation_config.eos_token_id, ends
        try:
            ended = own(model, batch, LONG)
            assert padded(ended, model.tokenizer.pad_token_id) == stock(model, batch, LONG)
            assert max(map(len, ended)) < LONG
            assert [len(row) for row in own(model, batch, 1)] == [1] * len(questions)
        finally:
            model.model.generation_config.eos_token_id = before


def test_an_answer_says_whether_a_token_ended_it(tools: Any) -> None:
    model = tiny_llava()
    lane = pipeline(model, "vanilla")
    batch = batch_of(lane, tools, QUESTIONS)
    free = own(model, batch, 12)
    model.model.generation_config.eos_token_id = free[1][4]
    at = [row.index(free[1][4]) + 1 if free[1][4] in row else 12 for row in free]
    _, trace = lane.generate(batch, 12)
    assert trace.written == at
    assert trace.ended == [free[1][4] in row for row in free]


@contextmanager
def passes(model: Family) -> Iterator[list[int]]:
    """Note the columns of every pass through the decoder."""
    seen: list[int] = []

    def note(module: Any, args: Any, kwargs: dict[str, Tensor]) -> None:
        seen.append(kwargs["inputs_embeds"].shape[1])

    handle = model.decoder.register_forward_pre_hook(note, with_kwargs=True)
    yield seen
    handle.remove()


@pytest.mark.parametrize("length", [1, 2, 15, 40])
def test_a_gpu_runs_few_steps_in_vain_and_is_waited_for_in_the_end_alone(length: int, tools: Any) -> None:
    model = tiny_llava()
    lane = pipeline(model, "random")
    batch = batch_of(lane, tools, QUESTIONS[:1])
    model.model.generation_config.eos_token_id = None
    (free,) = own(model, batch, length)
    with pretended_gpu() as gpu, moved(model.model), passes(model) as seen:
        batch = batch_of(lane, tools, QUESTIONS[:1])
        model.model.generation_config.eos_token_id = free[-1]
        first = free.index(free[-1]) + 1
        gpu.waits.clear()
        _, trace = lane.generate(batch, 400)
        assert {wait.function for wait in gpu.waits} <= {"_cut", "raise_if_invalid"}
    assert trace.written == [first]
    assert len(seen) - first == min(LATEST, first // 16)


def test_a_cache_that_grows_holds_what_one_that_copies_holds() -> None:
    grown, copied = buffered(2), DynamicCache()
    for columns in (5, 1, ROOM - 1, 3, 200, 1):
        for layer in range(2):
            keys, values = torch.randn(3, 2, columns + layer, 4), torch.randn(3, 2, columns + layer, 4)
            mine, theirs = grown.update(keys, values, layer), copied.update(keys, values, layer)
            assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
            assert grown.get_seq_length(layer) == copied.get_seq_length(layer)
    taken = buffered(3)
    repeat(grown, taken, torch.tensor([2, 0, 2, 1]), 7)
    assert [layer.is_initialized for layer in taken.layers] == [True, True, False], "what is not there is empty"
    assert torch.equal(taken.layers[1].keys, copied.layers[1].keys[[2, 0, 2, 1]])
    assert [layer.keys for layer in grown.layers] == [None, None], "the memory is given back layer by layer"


@pytest.fixture(params=DECODERS)
def broken(request: pytest.FixtureRequest) -> Family:
    """Model that overflows where a prompt has a Z in it."""
    family = TINY[request.param]()
    with torch.no_grad():
        family.model.get_input_embeddings().weight[family.tokenizer.convert_tokens_to_ids("Z")] = torch.inf
    return family


@pytest.mark.parametrize("pruner", ["vanilla", "random", "fastv"])
def test_a_prompt_whose_logits_overflow_is_told_from_its_neighbours(broken: Family, pruner: str, tools: Any) -> None:
    prompts = [Prompt(text, text, [tools.picture(40, 30)]) for text in ("What?", "Z?", "Which?")]
    together = pipeline(broken, pruner).run(prompts, 3)
    assert together.trace.finite == [True, False, True]
    alone = pipeline(broken, pruner).run(prompts[:1], 3)
    assert alone.texts[0] == together.texts[0]
    assert alone.trace.ended[0] == together.trace.ended[0]
