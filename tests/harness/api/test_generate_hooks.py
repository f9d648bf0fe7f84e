"""Pruning inside `generate` of stock models: the answers are those of `Model.answer`, and the model is as before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pruner_options import BEHIND, options_for
from transformers import DynamicCache, StaticCache

import vtpbench
from vtpbench.harness.models.tiny import TINY, tiny_llava
from vtpbench.pruners.base import Cut, ModelShape, Pruner, Selection, TokenView
from vtpbench.pruners.errors import Infeasible, Unsupported, UserError
from vtpbench.pruners.registry import BUILT_IN

MODELS = (*TINY, "demo")


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


QUESTIONS = ["What is it?", "How do these differ, and is one of the two the larger one?"]
IMAGES = [[picture(40, 30)], [picture(20, 48, 1)]]


def options(pruner: str, model: str) -> dict[str, Any]:
    return options_for(pruner, model)


def test_the_code_block_of_the_documentation(stock) -> None:
    for name in MODELS:
        own = stock(name)
        hf_model, processor, image, prompt = own.model, own.processor, picture(40, 30), own.prompt("What is it?")
        with vtpbench.pruned(hf_model, "fastv", budget="50%") as trace:
            ids = hf_model.generate(
                **processor(images=image, text=prompt, return_tensors="pt"), max_new_tokens=4, do_sample=False
            )
        (original,), (tokens,) = trace.original, trace.tokens
        assert ids.shape[0] == 1
        assert tokens == pytest.approx(original / 2, abs=1)


@pytest.mark.parametrize("pruner", [name for name in BUILT_IN if name != "text-only"])
@pytest.mark.parametrize("name", MODELS)
def test_answers_and_kept_tokens_are_those_of_answer(name, pruner, stock) -> None:
    own, given = stock(name), {"budget": "50%", **options(pruner, name)}
    inputs = own.inputs(QUESTIONS, IMAGES)
    assert (inputs["attention_mask"] == 0).any()  # the prompts are of unequal length
    try:
        with own.wrapped.pruned(pruner, **given) as expected:
            answers = own.wrapped.answers(IMAGES, QUESTIONS, max_new_tokens=8)
    except Unsupported:
        with pytest.raises(Unsupported), vtpbench.pruned(own.model, pruner, **given):
            own.generate(inputs)
        return
    if pruner == "downsample" or (pruner == "tome" and name not in BEHIND):
        with pytest.raises(Unsupported, match=r"where the stock model has run already; use `vtpbench.wrap"):  # noqa: SIM117
            with vtpbench.pruned(own.model, pruner, **given):
                own.generate(inputs)
        return
    with vtpbench.pruned(own.model, pruner, **given) as trace:
        ids = own.generate(inputs)
    assert own.texts(ids) == answers
    assert trace.kept == expected.kept
    assert trace.tokens_per_layer == expected.tokens_per_layer
    assert trace.original == expected.original
    assert pruner == "vanilla" or all(tokens < original for tokens, original in zip(trace.tokens, trace.original, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_text_only_answers_as_the_stock_model_without_places_for_images(name, stock) -> None:
    own = stock(name)
    inputs = own.inputs(QUESTIONS[:1], IMAGES[:1])
    ids = inputs["input_ids"]
    text = ids[ids != own.model.config.image_token_id][None]
    expected = own.generate({"input_ids": text, "attention_mask": torch.ones_like(text)})
    with vtpbench.pruned(own.model, "text-only", budget=1) as trace:
        assert torch.equal(own.generate(inputs), expected)
    assert trace.kept == [{0: []}]
    assert trace.tokens == [0]


@pytest.mark.parametrize("pruner", ["vanilla", "random", "fastv"])
@pytest.mark.parametrize("name", MODELS)
def test_keeping_all_is_the_stock_model(name, pruner, stock) -> None:
    """Bit by bit for one image; several are projected in one go by us, and one by one in memory by the stock model."""
    own = stock(name)
    wanted = {"return_dict_in_generate": True, "output_logits": True, "max_new_tokens": 6, "do_sample": False}
    for count, tolerance in ((1, 0.0), (2, 1e-5)):
        inputs = own.inputs(QUESTIONS[:count], IMAGES[:count])
        expected = own.model.generate(**inputs, **wanted)
        with vtpbench.pruned(own.model, pruner, budget="100%") as trace:
            found = own.model.generate(**inputs, **wanted)
        assert torch.equal(found.sequences, expected.sequences)
        torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=tolerance)
        assert trace.tokens == trace.original


@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_as_before_also_after_an_exception(name, stock) -> None:
    own = stock(name)
    inputs = own.inputs(QUESTIONS, IMAGES)
    settings, weights = own.model.generation_config, {key: value.clone() for key, value in own.model.state_dict().items()}
    before, there = own.generate(inputs), own.hooks()
    with vtpbench.pruned(own.model, "fastv", budget="50%"):
        own.generate(inputs)
        assert len(own.hooks()) > len(there)
    assert own.hooks() == there

    def fail(module: Any, args: Any) -> None:
        raise RuntimeError("in the middle")

    handle = own.model.model.language_model.layers[3].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="in the middle"), vtpbench.pruned(own.model, "fastv", budget="50%"):
        own.generate(inputs)
    handle.remove()
    assert own.hooks() == there
    assert own.model.generation_config is settings
    assert all(torch.equal(value, weights[key]) for key, value in own.model.state_dict().items())
    assert torch.equal(own.generate(inputs), before)


@pytest.mark.parametrize("pruner", ["random", "fastv", "pyramiddrop"])
@pytest.mark.parametrize("name", MODELS)
def test_several_images_none_and_several_calls_in_one_block(name, pruner, stock) -> None:
    own, given = stock(name), {"budget": "50%", **options(pruner, name)}
    asked = [["What is it?"], ["Nothing to see here."], ["How do these two differ?", "What?", "And without an image?"]]
    shown = [[[picture(40, 30)]], [[]], [[picture(20, 48, 1), picture(40, 30, 2)], [picture(40, 30, 3)], []]]
    with own.wrapped.pruned(pruner, **given) as expected:
        answers = [own.wrapped.answers(i, q, max_new_tokens=6) for i, q in zip(shown, asked, strict=True)]
    with vtpbench.pruned(own.model, pruner, **given) as trace:
        found = [own.texts(own.generate(own.inputs(q, i), 6)) for i, q in zip(shown, asked, strict=True)]
    assert found == answers
    assert trace.kept == expected.kept
    assert len(trace.kept) == 4


def test_padding_on_the_right_is_none_of_the_answers_business(stock) -> None:
    own = stock("llava")
    inputs = own.inputs(QUESTIONS, IMAGES)
    right = {key: value.clone() for key, value in inputs.items()}
    for row, flags in enumerate(inputs["attention_mask"].bool()):
        for key in ("input_ids", "attention_mask"):
            right[key][row] = torch.cat([inputs[key][row][flags], inputs[key][row][~flags]])
    with vtpbench.pruned(own.model, "fastv", budget="50%"):
        assert torch.equal(own.generate(right), own.generate(inputs))


def test_a_forward_pass_and_a_loop_of_ones_own(stock) -> None:
    own = stock("llava")
    inputs = own.inputs(QUESTIONS, IMAGES)
    with vtpbench.pruned(own.model, "fastv", budget="50%"), torch.no_grad():
        expected = own.generate(inputs, 4)
        output, found = own.model(**inputs), []
        for _ in range(4):
            found.append(output.logits[:, -1].argmax(-1, keepdim=True))
            output = own.model(input_ids=found[-1], past_key_values=output.past_key_values)
    assert torch.equal(torch.cat(found, dim=1), expected)


def test_sampling_draws_as_it_does_without_pruning_where_all_stays(stock) -> None:
    own = stock("llava")
    inputs = own.inputs(QUESTIONS, IMAGES)
    sampled = {"do_sample": True, "temperature": 3.0, "max_new_tokens": 6}
    torch.manual_seed(0)
    expected = own.model.generate(**inputs, **sampled)
    torch.manual_seed(0)
    with vtpbench.pruned(own.model, "random", budget="100%"):
        assert torch.equal(own.model.generate(**inputs, **sampled), expected)


@pytest.mark.parametrize("preencoded", [True, False])
def test_image_sizes_are_taken_where_the_model_is_told_and_found_where_not(preencoded, stock) -> None:
    own = stock("llava_next")
    for shape in [(40, 30), (30, 40), (32, 32), (90, 20), (15, 61)]:
        image = picture(*shape)
        inputs = own.inputs(["What?"], [[image]])
        with own.wrapped.pruned("random", budget="50%") as expected:
            own.wrapped.answer(image, "What?", max_new_tokens=1)
        with vtpbench.pruned(own.model, "random", budget="50%") as trace, torch.no_grad():
            own.generate(inputs, 1) if preencoded else own.model(**inputs)
        assert trace.kept == expected.kept, shape


# What cannot be pruned rightly says so, in one line.


@dataclass(frozen=True)
class Falling(Pruner):
    """Chooses in descending order, which is wrong."""

    layer: int = 0

    def cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        return (Cut(self.layer, 4),)

    def apply(self, view: TokenView) -> Selection:
        return Selection(torch.arange(3, -1, -1).expand(len(view.features), -1))


@pytest.mark.parametrize("layer", [0, 2])
def test_a_wrong_selection_is_refused_on_the_way_out_and_in_the_next_call(layer, stock) -> None:
    own, done = stock("llava"), []
    inputs = own.inputs(QUESTIONS, IMAGES)
    with pytest.raises(UserError, match="not ascending"), vtpbench.pruned(own.model, Falling(layer), budget=4):
        done.append(own.generate(inputs))
    assert len(done) == 1
    with vtpbench.pruned(own.model, Falling(layer), budget=4):
        own.generate(inputs)
        with pytest.raises(UserError, match="not ascending"):
            own.generate(inputs)
    assert not own.hooks()


def test_several_answers_to_a_prompt_are_refused_or_right(stock) -> None:
    own = stock("llava")
    inputs = own.inputs(QUESTIONS, IMAGES)
    for wanted in ({"num_beams": 2}, {"num_beams": 2, "num_return_sequences": 2}):
        with vtpbench.pruned(own.model, "random", budget="100%"):
            try:
                found = own.generate(inputs, **wanted)
            except UserError as e:
                assert "num_beams" in str(e)  # noqa: PT017 - transformers before 5.23 repeats the pixels, and all is well
                continue
        assert torch.equal(found, own.generate(inputs, **wanted))


REFUSED = {
    "use_cache=False": {"use_cache": False},
    "StaticCache": {"cache_implementation": "static"},
    "DynamicCache cannot be pruned": {"cache_implementation": "offloaded"},
}


@pytest.mark.parametrize("words", REFUSED)
def test_calls_whose_answers_would_be_wrong_are_refused(words, stock) -> None:
    own = stock("llava")
    inputs = own.inputs(QUESTIONS[:1], IMAGES[:1])
    if words == "DynamicCache cannot be pruned" and not torch.cuda.is_available():
        cache = DynamicCache(config=own.model.config)
        cache.offloading = True
        given = {"past_key_values": cache}
    else:
        given = REFUSED[words]
    with pytest.raises(UserError, match=words), vtpbench.pruned(own.model, "fastv", budget="50%"):
        own.generate(inputs, 24, **given)
    assert not own.hooks()


def test_a_static_cache_of_ones_own_is_refused(stock) -> None:
    own = stock("llava")
    cache = StaticCache(config=own.model.config.text_config, max_cache_len=300)
    with pytest.raises(UserError, match="StaticCache"), vtpbench.pruned(own.model, "fastv", budget="50%"):
        own.generate(own.inputs(QUESTIONS[:1], IMAGES[:1]), past_key_values=cache)


def test_an_assistant_model_is_refused(stock) -> None:
    own = stock("llava")
    inputs = own.inputs(QUESTIONS[:1], IMAGES[:1])
    with pytest.raises(UserError, match="assistant"), vtpbench.pruned(own.model, "fastv", budget="50%"):
        own.generate(inputs, 24, assistant_model=tiny_llava(seed=1).model)


def test_going_on_from_a_cache_is_refused(stock) -> None:
    own = stock("llava")
    inputs = own.inputs(QUESTIONS[:1], IMAGES[:1])
    first = own.model.generate(**inputs, max_new_tokens=2, do_sample=False, return_dict_in_generate=True)
    with vtpbench.pruned(own.model, "fastv", budget="50%"), torch.no_grad():
        second = own.model.generate(**inputs, max_new_tokens=2, do_sample=False, return_dict_in_generate=True)
        more = torch.tensor([[40, 41]])
        with pytest.raises(UserError, match="further turns"):
            own.model(input_ids=more, past_key_values=second.past_key_values)
        own.generate(inputs, 2)
        with pytest.raises(UserError, match="one token at a time"):
            own.model(input_ids=more[:, :1], past_key_values=second.past_key_values)
        with pytest.raises(UserError, match="whole conversation"):
            own.model(**inputs, past_key_values=first.past_key_values)


def test_images_that_were_encoded_outside_or_embedded_already_are_refused(stock) -> None:
    own = stock("llava")
    inputs = own.inputs(QUESTIONS[:1], IMAGES[:1])
    with torch.no_grad():
        embeds = own.model.get_input_embeddings()(inputs["input_ids"])
    with vtpbench.pruned(own.model, "fastv", budget="50%"), torch.no_grad():
        with pytest.raises(UserError, match="pixel_values"):
            own.model(input_ids=inputs["input_ids"])
        with pytest.raises(UserError, match="input_ids"):
            own.model(inputs_embeds=embeds, pixel_values=inputs["pixel_values"])


def test_gradients_are_refused(stock) -> None:
    own = stock("llava")
    with pytest.raises(UserError, match="no_grad"), vtpbench.pruned(own.model, "fastv", budget="50%"):
        own.model(**own.inputs(QUESTIONS[:1], IMAGES[:1]))


def test_two_blocks_on_one_model_are_refused(stock) -> None:
    own = stock("llava")
    with vtpbench.pruned(own.model, "fastv", budget="50%"):
        with pytest.raises(UserError, match="acts on this model already"):  # noqa: SIM117
            with vtpbench.pruned(own.model, "random", budget=8):
                pass
        with pytest.raises(UserError, match="acts on this model already"):
            own.wrapped.answer(picture(40, 30), "What?")
    assert not own.hooks()


def test_what_is_out_of_reach_is_said_when_the_block_begins(stock) -> None:
    own = stock("llava")
    with pytest.raises(Infeasible, match="at least"), vtpbench.pruned(own.model, "fastv", budget=2):
        raise AssertionError("the block must not begin")


@dataclass(frozen=True)
class Asking(Pruner):
    """Keeps what it was asked in a list."""

    seen: list[tuple[str, ...]]
    reads_question = True

    def score(self, view: TokenView) -> torch.Tensor:
        self.seen.append(view.questions)
        return view.features[..., 0]


@pytest.mark.parametrize("with_processor", [True, False])
def test_pruners_see_the_prompts_where_a_processor_is_given(with_processor, stock) -> None:
    own, seen = stock("llava"), []

    with vtpbench.pruned(own.model, Asking(seen), budget=4, processor=own.processor if with_processor else None):
        own.generate(own.inputs(QUESTIONS, IMAGES), 1)
    assert seen[0] == (tuple(QUESTIONS) if with_processor else ())


def test_a_prompt_that_the_template_did_not_make_is_shown_whole(stock) -> None:
    own, seen = stock("llava"), []

    with vtpbench.pruned(own.model, Asking(seen), budget=4, processor=own.processor):
        own.generate(own.processor(images=IMAGES[0], text="<image>Look: what is it?", return_tensors="pt"), 1)
    assert [question for asked in seen for question in asked] == ["Look: what is it?"]
