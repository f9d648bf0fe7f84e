"""Models to ask from Python: loaded, wrapped, pruned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

import vtpbench
from vtpbench.harness.models.tiny import TINY, tiny_llava
from vtpbench.harness.pruning.pipeline import Pipeline, Prompt
from vtpbench.pruners.errors import Infeasible, Unsupported, UserError
from vtpbench.pruners.fastv import FastV
from vtpbench.pruners.random import Random
from vtpbench.pruners.registry import build

MODELS = (*TINY, "demo")
MINE = """
from dataclasses import dataclass

from torch import Tensor

from vtpbench.pruners.base import Pruner, TokenView


@dataclass(frozen=True)
class Mine(Pruner):
    sign: float = 1.0

    def score(self, view: TokenView) -> Tensor:
        return self.sign * view.features.norm(dim=-1)
"""


def picture(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", MODELS)
def test_the_code_block_of_the_documentation(name, stock) -> None:
    model, image = stock(name).wrapped, picture()
    with model.pruned("random", budget="50%") as trace:
        text = model.answer(image, "What is on the table?")
    assert isinstance(text, str)
    (kept,), (per_layer,), (original,) = trace.kept, trace.tokens_per_layer, trace.original
    assert list(kept) == [0]
    assert len(kept[0]) == per_layer[0] == trace.tokens[0] == pytest.approx(original / 2, abs=1)
    assert set(per_layer) == {per_layer[0]}


def test_a_loaded_checkpoint_answers_as_the_pipeline_does(tiny_checkpoint: Path) -> None:
    model, image = vtpbench.load(tiny_checkpoint, device="cpu"), picture()
    expected = Pipeline(tiny_llava(), build("visionzip", {}), lambda n: 4).run([Prompt("any", "What is it?", (image,))], 8)
    with model.pruned("visionzip", budget=4) as trace:
        assert model.answer(image, "What is it?", max_new_tokens=8) == expected.texts[0].strip()
    assert trace.kept == [{0: expected.images[0][0].index.tolist()}]
    assert model.vision_tokens == 16
    assert "16 vision tokens" in repr(model)


def test_the_demo_sees_what_is_there(tmp_path: Path) -> None:
    model = vtpbench.load("demo", device="cpu")
    image = Image.new("RGB", (96, 96), (90, 95, 100))
    image.paste((220, 30, 35), (30, 30, 55, 55))
    image.save(tmp_path / "square.png")
    question = "Is there a red square in the picture? Answer yes or no."
    whole = model.answer(image, question)
    with model.pruned("visionzip", budget=48) as trace:
        answers = [model.answer(source, question) for source in (image, str(tmp_path / "square.png"), tmp_path / "square.png")]
    assert len(set(answers)) == 1
    assert trace.kept[0] == trace.kept[1] == trace.kept[2]
    assert trace.original == [144] * 3
    assert trace.tokens == [48] * 3
    assert whole
    assert model.answer(None, "What is 2 and 2?") == model.answers([[]], ["What is 2 and 2?"])[0]


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_is_answered_as_one_by_one(name, stock) -> None:
    model = stock(name).wrapped
    images = [picture(), None, [picture(20, 48, 1), picture(44, 26, 2)], [], picture()]
    questions = ["What is it?", "Nothing to see here.", "How do these two differ, and is one larger?", "Hm?", "And this one?"]
    with model.pruned("random", budget="50%", seed=3) as together:
        answers = model.answers(images, questions, max_new_tokens=6)
    with model.pruned("random", budget="50%", seed=3) as alone:
        for image, question, answer in zip(images, questions, answers, strict=True):
            assert model.answer(image, question, max_new_tokens=6) == answer
    assert together.kept == alone.kept
    assert len(together.kept) == 4
    assert together.kept[0] == together.kept[3]  # the same pixels, the same draw


def test_seeds_and_images_draw_differently(stock) -> None:
    model = stock("demo").wrapped
    kept = []
    for seed, image in ((0, picture()), (1, picture()), (0, picture(seed=5))):
        with model.pruned("random", budget=24, seed=seed) as trace:
            model.answer(image, "What?", max_new_tokens=1)
        kept.append(tuple(trace.kept[0][0]))
    assert len(set(kept)) == 3


def test_a_pruner_is_a_name_with_options_an_object_or_a_class_in_a_file(stock, tmp_path, monkeypatch) -> None:
    model = stock("llava").wrapped
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)

    def kept(*args: Any, **options: Any) -> list[dict[int, list[int]]]:
        with model.pruned(*args, **options) as trace:
            model.answer(picture(), "What?", max_new_tokens=1)
        return trace.kept

    assert kept("fastv", budget=8, layer=2) == kept(FastV(layer=2), budget="50%")
    assert list(kept("fastv", budget=8, layer=2)[0]) == [2]
    assert kept("random", budget=np.int64(8), seed=4) == kept(Random(seed=4), budget=8)
    assert kept("./mine.py:Mine", budget=8) != kept("./mine.py:Mine", budget=8, sign=-1.0)
    assert kept("vanilla") == [{0: list(range(16))}]


@pytest.mark.parametrize("name", MODELS)
def test_outside_a_block_the_model_is_whole_also_after_an_exception(name, stock) -> None:
    model = stock(name).wrapped
    before = model.answer(picture(), "What is it?", max_new_tokens=8)

    def fail() -> None:
        with model.pruned("random", budget="20%"):
            model.answer(picture(), "What is it?", max_new_tokens=8)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert model.answer(picture(), "What is it?", max_new_tokens=8) == before
    with model.pruned("random", budget="20%"):
        pass


@pytest.mark.parametrize("name", MODELS)
def test_wrapping_changes_nothing_and_the_models_own_settings_do_not_count(name, stock) -> None:
    own = stock(name)
    before = own.wrapped.answer(picture(), "What is it?", max_new_tokens=8)
    kept, weights = own.model.generation_config, {key: value.clone() for key, value in own.model.state_dict().items()}
    wild = GenerationConfig(do_sample=True, temperature=9.0, repetition_penalty=9.0, num_beams=3, suppress_tokens=[5, 6])
    wild.eos_token_id, wild.pad_token_id, wild.bos_token_id = kept.eos_token_id, kept.pad_token_id, kept.bos_token_id
    own.model.generation_config = wild
    try:
        model = vtpbench.wrap(own.model, own.processor, preprocessing=type(own.wrapped._family).preprocessings[-1])
        assert model.answer(picture(), "What is it?", max_new_tokens=8) == before
        assert own.model.generation_config is wild
        assert wild.num_beams == 3
    finally:
        own.model.generation_config = kept
    assert all(torch.equal(value, weights[key]) for key, value in own.model.state_dict().items())
    assert not own.hooks()


def test_the_wrapped_model_is_that_of_the_checkpoint(tiny_checkpoint: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    hf_model = AutoModelForImageTextToText.from_pretrained(tiny_checkpoint)
    wrapped = vtpbench.wrap(hf_model, AutoProcessor.from_pretrained(tiny_checkpoint))
    loaded = vtpbench.load(str(tiny_checkpoint), device="cpu", dtype=torch.float32)
    for pruner in ("vanilla", "fastv", "tome", "downsample", "text-only"):
        answers, traces = [], []
        for model in (wrapped, loaded):
            with model.pruned(pruner, budget=9) as trace:
                answers.append(model.answer(picture(), "What is it?", max_new_tokens=8))
            traces.append(trace.kept)
        assert answers[0] == answers[1], pruner
        assert traces[0] == traces[1], pruner


def test_pruners_find_weights_in_the_folder_of_a_wrapped_checkpoint(stock) -> None:
    with stock("demo").wrapped.pruned("oc-vtp", budget=48) as trace:
        stock("demo").wrapped.answer(picture(), "What is it?", max_new_tokens=1)
    assert trace.tokens == [48]
    with pytest.raises(Unsupported, match="no trained checkpoint"):
        _block(stock("llava").wrapped, "oc-vtp", budget=4)


# Mistakes are one line each.


def _block(model: vtpbench.Model, *args: Any, **options: Any) -> None:
    with model.pruned(*args, **options):
        raise AssertionError("the block must not begin")


MISTAKES: dict[str, tuple[type[UserError], Callable[[vtpbench.Model], object]]] = {
    "unknown pruner 'randon'; did you mean 'random'?": (UserError, lambda m: _block(m, "randon", budget=4)),
    "has no option 'layers'": (UserError, lambda m: _block(m, "fastv", budget=4, layers=3)),
    "FastV is made already; give layer, seed where": (UserError, lambda m: _block(m, FastV(), budget=4, layer=3, seed=1)),
    "is no pruner; give a name such as": (UserError, lambda m: _block(m, FastV, budget=4)),
    "FastV needs a budget": (UserError, lambda m: _block(m, "fastv")),
    "budget 17 is larger than the 16 vision tokens": (UserError, lambda m: _block(m, "random", budget=17)),
    "at least 1 vision token, not 0": (UserError, lambda m: _block(m, "random", budget=0)),
    "a count of vision tokens": (UserError, lambda m: _block(m, "random", budget=0.5)),
    "not True": (UserError, lambda m: _block(m, "random", budget=True)),
    "at most 100%": (UserError, lambda m: _block(m, "random", budget="101%")),
    "no pruner file": (UserError, lambda m: _block(m, "./nothing.py:Mine", budget=4)),
    "at least 6 on average, not 5": (Infeasible, lambda m: _block(m, "fastv", budget=5)),
    "int is no image": (UserError, lambda m: m.answer(3, "What?")),  # type: ignore[arg-type]
    "ndarray is no image": (UserError, lambda m: m.answer(np.zeros((4, 4, 3)), "What?")),  # type: ignore[arg-type]
    "bytes is no image": (UserError, lambda m: m.answer([b"x"], "What?")),  # type: ignore[list-item]
    "cannot read the image nowhere.png": (UserError, lambda m: m.answer("nowhere.png", "What?")),
    "1 entries of images for 2 questions": (UserError, lambda m: m.answers([None], ["What?", "Why?"])),
    "one entry for each question": (UserError, lambda m: m.answers([None], "W")),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_of_asking(words, stock, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    kind, ask = MISTAKES[words]
    with pytest.raises(kind, match=words.replace("?", r"\?")) as raised:
        ask(stock("llava").wrapped)
    assert "\n" not in str(raised.value)


def test_a_block_inside_another_is_refused_and_the_outer_goes_on(stock) -> None:
    model = stock("llava").wrapped
    with model.pruned("random", budget=4) as trace:
        with pytest.raises(UserError, match="one `pruned` block inside another"):
            _block(model, "fastv", budget=8)
        model.answer(picture(), "What?", max_new_tokens=1)
    assert trace.tokens == [4]


def test_mistakes_of_wrapping(stock) -> None:
    own = stock("llava")
    text_model = LlamaForCausalLM(LlamaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    known = "LlavaForConditionalGeneration, LlavaNextForConditionalGeneration, LlavaOnevisionForConditionalGeneration"
    for use in (lambda m: vtpbench.wrap(m, own.processor), lambda m: vtpbench.pruned(m, "random", budget=4).__enter__()):
        with pytest.raises(UserError, match=f"LlamaForCausalLM is not supported; give a model of transformers: {known}"):
            use(text_model.eval())
        with pytest.raises(UserError, match="str is not supported"):
            use("llava-hf/llava-1.5-7b-hf")
        with pytest.raises(UserError, match="device 'meta'"):
            use(tiny_llava().model.to("meta"))
        with pytest.raises(UserError, match=r"model.eval\(\)"):
            use(tiny_llava().model.train())
    with pytest.raises(UserError, match="is no processor"):
        vtpbench.wrap(own.model, own.processor.tokenizer)
    with pytest.raises(UserError, match=r"preprocessing 'native' is not one of .* \(pad, crop\)"):
        vtpbench.wrap(own.model, own.processor, preprocessing="native")
    with pytest.raises(UserError, match="neither vicuna_v1 nor a Jinja file"):
        vtpbench.wrap(own.model, own.processor, prompt="nothing.jinja")


def test_a_template_without_places_for_images_is_refused(stock, tmp_path: Path) -> None:
    own, file = stock("llava"), tmp_path / "wrong.jinja"
    file.write_text("{{ messages[0].content[-1].text }}")
    with pytest.raises(UserError, match="gives 0 image tokens for 2 images"):
        vtpbench.wrap(own.model, own.processor, prompt=str(file))


def test_a_processor_without_a_template(stock) -> None:
    for name in ("llava", "qwen2_5_vl"):
        own = stock(name)
        template, own.processor.chat_template = own.processor.chat_template, None
        try:
            if name == "llava":
                assert vtpbench.wrap(own.model, own.processor, preprocessing="crop").answer(None, "Hm?") is not None
            else:
                with pytest.raises(UserError, match=r"no chat template; give the one to use: prompt='template.jinja'"):
                    vtpbench.wrap(own.model, own.processor)
        finally:
            own.processor.chat_template = template


def test_mistakes_of_loading(tiny_checkpoint: Path) -> None:
    for words, given in {
        "no checkpoint folder ./nowhere": {"model": "./nowhere"},
        "device 'meta' holds no values": {"model": "demo", "device": "meta"},
        "attention spda: did you mean 'sdpa'": {"model": "demo", "attention": "spda"},
        "dtype int8: give float32": {"model": "demo", "dtype": "int8"},
        "preprocessing 'native' is not one of": {"model": "demo", "preprocessing": "native"},
    }.items():
        with pytest.raises(UserError, match=words):
            vtpbench.load(**given)  # type: ignore[arg-type]
