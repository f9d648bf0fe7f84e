from collections.abc import Callable

import pytest
import torch
from pruner_options import ONEVISION, UNSUPPORTED, options_for
from torch import Tensor, nn

from vtpbench.harness.models.family import Family
from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.pruning.schedule import collecting
from vtpbench.pruners.base import Evidence
from vtpbench.pruners.registry import build

FAMILIES = list(TINY)
PRUNERS = {
    "random": 0.5,
    "fastv": 0.5,
    "pyramiddrop": 0.5,
    "sparsevlm": 0.5,
    "visionzip": 0.5,
    "hiprune": 0.5,
    "grid": 0.5,
    "pool": 0.5,
    "divprune": 0.5,
    "dart": 0.5,
    "prumerge": 0.5,
    "prumerge-plus": 0.5,
    "fastervlm": 0.5,
    "vispruner": 0.5,
    "tome": 0.5,
    "vscan": 0.5,
    "downsample": 0.5,
    "text-only": 0.5,
}

IN_DECODER = ("vanilla", "random", "fastv", "pyramiddrop", "sparsevlm", "vscan")
"""Pruners whose decoding differs in kind; behind the cut at depth 0 the others are like random."""


def make(name: str, family: str):
    """Build a pruner with the options without which it refuses a family."""
    return build(name, options_for(name, family))


def stock_llava_next(family, question, image) -> dict:
    """Give the stock model the features of its own tower and projector, laid out by rows of the joined picture."""
    tiles = family.image_processor(image, image_grid_pinpoints=[[32, 32]], return_tensors="pt")["pixel_values"][0]
    with torch.inference_mode():
        states = family.model.model.vision_tower(tiles, output_hidden_states=True).hidden_states[-2][:, 1:]
        features = family.model.model.multi_modal_projector(states)
        joined = features[1:].reshape(2, 2, 4, 4, -1).transpose(1, 2).reshape(64, -1)
        ids = family.expanded_ids(question, [80])
        embeds = family.model.get_input_embeddings()(ids)
        embeds[ids == family.image_id] = torch.cat([features[0], joined])
    return {"inputs_embeds": embeds}


def stock_inputs(name: str, family: Family, question: str, image) -> dict:
    """What the stock model takes: made of pixels, but for LLaVA-NeXT's protocol without newlines, which is our own."""
    return stock_llava_next(family, question, image) if name == "llava_next" else family.stock_inputs(question, [image])


def hooks(family: Family) -> int:
    """Count hooks; transformers leaves some of its own behind where it has captured hidden states."""
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in family.model.modules())


def stock_logits(name: str, family: Family, tools) -> Tensor:
    inputs = stock_inputs(name, family, "What is it?", tools.picture(40, 30))
    with torch.inference_mode():
        length = next(iter(inputs.values())).shape[1]
        return family.model(**inputs, attention_mask=torch.ones(1, length, dtype=torch.int64)).logits


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("pruner", "options"), [("vanilla", {}), ("random", {}), ("fastv", {})])
def test_keeping_all_is_the_stock_model_bit_by_bit(name, pruner, options, tiny, tools) -> None:
    family = tiny(name)
    expected = stock_logits(name, family, tools)
    batch = tools.prepare(family, build(pruner, options), 1.0, tools.MIXED[:1])
    logits, _ = tools.forward(family, batch)
    assert torch.equal(logits, expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_model_is_as_before_afterwards_also_after_an_exception(name, tiny, tools) -> None:
    family, pruner = tiny(name), make("fastv", name)
    before, there = stock_logits(name, family, tools), hooks(family)
    kinds = ("hidden", "received", "keys", "projected")
    Pipeline(family, collecting(*(Evidence(kind, -1) for kind in kinds))).encode([tools.picture(40, 30)])
    batch = tools.prepare(family, pruner, 0.5, tools.MIXED)
    tools.forward(family, batch)
    assert hooks(family) == there
    handle = family.decoder.layers[3].register_forward_pre_hook(_fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        tools.forward(family, batch)
    handle.remove()
    assert hooks(family) == there
    assert torch.equal(stock_logits(name, family, tools), before)


def _fail(module: nn.Module, args: object) -> None:
    raise RuntimeError("in the middle")


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("pruner", ["vanilla", *PRUNERS])
def test_a_prompt_in_a_batch_is_answered_as_alone(name, pruner, tiny, tools) -> None:
    if (pruner, name) in UNSUPPORTED:
        pytest.skip("it says so")
    family, chosen = tiny(name), make(pruner, name)
    together = tools.prepare(family, chosen, PRUNERS.get(pruner), tools.MIXED)
    logits, trace = tools.forward(family, together)
    texts = Pipeline(family).generate(together, 4)[0] if pruner in IN_DECODER else None
    first = 0
    for row, asked in enumerate(tools.MIXED):
        alone = tools.prepare(family, chosen, PRUNERS.get(pruner), [asked])
        expected, own = tools.forward(family, alone)
        torch.testing.assert_close(logits[row, -1], expected[0, -1], rtol=1e-5, atol=1e-5)
        assert texts is None or Pipeline(family).generate(alone, 4)[0] == [texts[row]]
        for number in own.kept:
            assert own.per_layer[number] == trace.per_layer[first + number]
            for at, kept in own.kept[number].items():
                assert torch.equal(kept, trace.kept[first + number][at])
        first += len(own.kept)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("pruner", ["vanilla", "fastv", "pyramiddrop", "sparsevlm", "visionzip", "hiprune"])
def test_kernels_agree(name, pruner, tiny, tools) -> None:
    found = []
    for attention in ("sdpa", "eager"):
        family, chosen = tiny(name, attention=attention), make(pruner, name)
        batch = tools.prepare(family, chosen, PRUNERS.get(pruner), tools.MIXED)
        found.append((tools.forward(family, batch)[0][:, -1], Pipeline(family).generate(batch, 4)[0]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-5)
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize("name", FAMILIES)
def test_observed_counts_average_to_the_budget(name, tiny, tools) -> None:
    for pruner in ("random", "fastv", "pyramiddrop", "sparsevlm", "visionzip", "hiprune", "grid", "pool", "divprune", "tome"):
        family, chosen = tiny(name), make(pruner, name)
        batch = tools.prepare(family, chosen, 0.5, tools.MIXED[:1])
        _, trace = tools.forward(family, batch)
        assert sum(trace.per_layer[0]) / 6 == pytest.approx(batch.images[0].original / 2, abs=1), pruner


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != ONEVISION])  # newlines have no number to tell them by
def test_removing_tokens_is_masking_their_columns(name, tiny, tools) -> None:
    family, pruner, at = tiny(name), build("fastv", {"layer": 3}), 3
    batch = tools.prepare(family, pruner, 0.75, tools.MIXED[:1])
    logits, trace = tools.forward(family, batch)
    place = batch.layout.places[0]
    removed = torch.ones(place.length, dtype=torch.bool)
    sequence = batch.images[0].index.tolist()
    removed[[sequence.index(kept) for kept in trace.kept[0][at].tolist()]] = False
    assert removed.any()
    whole = tools.prepare(family, build("vanilla", {}), None, tools.MIXED[:1])
    with masked(family, at, place.start + removed.nonzero().flatten()):
        expected = tools.forward(family, whole)[0]
    torch.testing.assert_close(logits[0, -1], expected[0, -1], rtol=1e-5, atol=1e-5)


class masked:  # noqa: N801 - reads as a function
    """Hide columns from every layer from `at` on, with a mask of our own making."""

    def __init__(self, family: Family, at: int, columns: Tensor) -> None:
        self.layers, self.columns, self.handles = family.decoder.layers[at:], columns, []

    def __enter__(self) -> None:
        def hide(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            width = args[0].shape[1]
            seen = torch.ones(width, width, dtype=torch.bool).tril()
            seen[:, self.columns] = False
            seen.fill_diagonal_(True)
            return args, {**kwargs, "attention_mask": seen[None, None]}

        self.handles = [layer.register_forward_pre_hook(hide, with_kwargs=True) for layer in self.layers]

    def __exit__(self, *exception: object) -> None:
        for handle in self.handles:
            handle.remove()


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_text_is_that_of_the_stock_model(name, tiny, tools) -> None:
    family = tiny(name)
    inputs = stock_inputs(name, family, "What is it?", tools.picture(40, 30))
    if name == "llava_next":  # stock generate takes pixels only; embeddings say the same
        prepared = tools.prepare(family, build("vanilla", {}), None, tools.MIXED[:1])
        inputs = {"inputs_embeds": prepared.embeds}
        length = 0
    else:
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        length = inputs["input_ids"].shape[1]
    stock = family.model.generate(**inputs, max_new_tokens=8, do_sample=False, pad_token_id=3)[:, length:]
    batch = tools.prepare(family, build("vanilla", {}), None, tools.MIXED[:1])
    texts, _ = Pipeline(family).generate(batch, 8)
    assert texts == family.tokenizer.batch_decode(stock, skip_special_tokens=True)


def test_images_marked_in_a_question_come_first(tiny: Callable[..., Family]) -> None:
    family = tiny("llava")
    assert family.render("In <image>, what is <image>?", 2) == family.render("In , what is ?", 2)
