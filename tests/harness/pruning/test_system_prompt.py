"""What prompts begin with is prefilled once, and behind it all goes on as in whole prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from pruner_options import DECODERS, options_for
from rehearsal import on_pretended_gpu

from vtpbench.harness.models.family import Family
from vtpbench.harness.models.tiny import TINY, tiny_llava
from vtpbench.harness.pruning.batch import PromptBatch
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.pruning.system_prompt import LEAST
from vtpbench.pruners.registry import build

ASKED = "{% for m in messages %}{% for c in m.content if c.type == 'text' %}{{ c.text }}{% endfor %}{% endfor %}"
ALIKE = ["What?", "Whom?", "Whim?"]
QUESTIONS = ["What?", "Is there a thing in the picture, or is there none?", "Which?"]
ATTENTIONS = ["sdpa", "eager"]
INSIDE = ["fastv", "sparsevlm", "pyramiddrop", "dart", "vscan"]


def pipeline(model: Family, name: str, **options: Any) -> Pipeline:
    pruner = build(name, options_for(name, model.shape.family))
    return Pipeline(model, pruner, (lambda n: None) if name == "vanilla" else (lambda n: n // 2), **options)


def batch_of(lane: Pipeline, tools: Any, questions: Sequence[str]) -> PromptBatch:
    """Ask each question about a picture of its own."""
    count = len(questions)
    left = lane.select(lane.encode([tools.picture(40, 30, n) for n in range(count)]), list(map(str, range(count))), questions)
    return lane.assemble(questions, [[left[n]] for n in range(count)])


@pytest.mark.usefixtures("always_shared")
@pytest.mark.parametrize("questions", [ALIKE, QUESTIONS], ids=["alike", "padded"])
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", ["vanilla", "text-only", *INSIDE])
@pytest.mark.parametrize("family", list(TINY))
def test_answers_and_kept_tokens_are_those_of_whole_prompts(
    tools: Any, family: str, name: str, attention: str, questions: list[str]
) -> None:
    model = TINY[family](attention)
    batch = batch_of(pipeline(model, name), tools, questions)
    expected, whole = pipeline(model, name).generate(batch, 6)
    answers, behind = pipeline(model, name, share_prefix=True).generate(batch, 6)
    assert answers == expected
    assert (behind.per_layer, behind.written, behind.finite) == (whole.per_layer, whole.written, whole.finite)
    assert [{at: left.tolist() for at, left in behind.kept[n].items()} for n in behind.kept] == [
        {at: left.tolist() for at, left in whole.kept[n].items()} for n in whole.kept
    ]


@pytest.mark.usefixtures("always_shared")
@pytest.mark.parametrize("questions", [ALIKE, QUESTIONS], ids=["alike", "padded"])
@pytest.mark.parametrize("name", ["vanilla", *INSIDE])
@pytest.mark.parametrize("family", DECODERS)
def test_logits_keys_and_positions_are_those_of_whole_prompts(tools: Any, family: str, name: str, questions: list[str]) -> None:
    model = TINY[family]()
    batch = batch_of(pipeline(model, name), tools, questions)
    whole, behind = (pipeline(model, name, share_prefix=shared).prefill(batch) for shared in (False, True))
    torch.testing.assert_close(behind.logits, whole.logits, rtol=1e-4, atol=1e-5)
    for own, expected in zip(behind.start.stages(0), whole.start.stages(0), strict=True):
        assert own.at == expected.at
        assert torch.equal(own.next, expected.next)
        assert own.valid.sum(dim=1).tolist() == expected.valid.sum(dim=1).tolist()
        layer, other = (begun.start.cache.layers[own.at] for begun in (behind, whole))
        for row, (real, truth) in enumerate(zip(own.valid, expected.valid, strict=True)):
            torch.testing.assert_close(layer.keys[row][:, real], other.keys[row][:, truth], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("always_shared")
@pytest.mark.parametrize("name", ["vanilla", "visionzip", "fastv"])
def test_it_enters_the_language_model_once(tools: Any, name: str) -> None:
    model = tiny_llava()
    lane = pipeline(model, name, share_prefix=True)
    batch = batch_of(lane, tools, QUESTIONS)
    system = batch.layout.rows[0][0].length
    with tools.columns_seen(model) as seen:
        lane.generate(batch, 1)
        lane.generate(batch, 1)
    rest = (len(QUESTIONS), batch.layout.width - system)
    assert seen == [(1, system), rest, rest]


@pytest.mark.usefixtures("always_shared")
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("around", ["abcdefgh", ""])
def test_a_single_token_behind_a_picture_sees_all_before_it(tools: Any, attention: str, around: str) -> None:
    model = TINY["llava"](attention)
    model.chat_template = f"{around}<image>{ASKED}"
    lanes = [Pipeline(model, build("fastv", {"layer": 1}), lambda n: n // 2, share_prefix=shared) for shared in (False, True)]
    left = lanes[0].select(lanes[0].encode([tools.picture(40, 30)]), ["0"])
    batch = lanes[0].assemble(["Q", "R", "S"], [[left[0]]] * 3)
    assert [row[-1].length for row in batch.layout.rows] == [1, 1, 1]
    whole, shared = (lane.prefill(batch) for lane in lanes)
    torch.testing.assert_close(shared.logits, whole.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("always_shared")
def test_a_graph_is_of_one_system_prompt(tools: Any) -> None:
    model = tiny_llava()
    model.model.generation_config.eos_token_id = None
    lane, plain = pipeline(model, "fastv", share_prefix=True, graphs=True), pipeline(model, "fastv")
    templates = [around + model.chat_template for around in ("aaaaaaaaaaaa ", "zqzqzqzqzqzq ")]
    expected, found = list[list[str]](), list[list[str]]()
    for model.chat_template in templates:
        expected.append(plain.generate(batch_of(plain, tools, ALIKE), 3)[0])
    with on_pretended_gpu(model):
        for model.chat_template in templates:
            found += [lane.generate(batch_of(lane, tools, ALIKE), 3)[0] for _ in range(3)]
        assert model.captured_passes.replays["prefill with FastV"] == 4
    assert expected[0] != expected[1]
    assert found == [expected[0]] * 3 + [expected[1]] * 3


@pytest.mark.usefixtures("always_shared")
def test_it_is_another_in_another_number_format(tools: Any) -> None:
    model = tiny_llava()
    lane = pipeline(model, "vanilla", share_prefix=True)
    for dtype in (torch.float32, torch.bfloat16):
        model.model.to(dtype)
        lane.prefill(batch_of(lane, tools, QUESTIONS))
        assert model.system_prompt.cached[0][0].dtype == dtype


@pytest.mark.usefixtures("always_shared")
def test_it_is_another_where_template_or_system_message_are_others() -> None:
    model = tiny_llava()
    before = model.system_prompt
    assert model.system_prompt is before
    model.chat_template = "Look, and say it in few words: " + model.chat_template
    assert len(model.system_prompt) > len(before) >= 1


@pytest.mark.usefixtures("always_shared")
def test_prompts_that_begin_otherwise_are_prefilled_whole(tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llava()
    lane = pipeline(model, "vanilla", share_prefix=True)
    batch = batch_of(lane, tools, QUESTIONS)
    (image, *_), system = batch.images, model.system_prompt
    assert system.opens(batch.heads, batch.layout)
    for questions, images in {"one without a picture": (QUESTIONS[:2], [[image], []]), "no picture": (["What?"], [[]])}.values():
        other = lane.assemble(questions, images)
        assert not system.opens(other.heads, other.layout)
    ids = [*lane.model.prompt_ids("What?", 1)]
    longer = lane.assemble_ids([ids[:1] + ids], [[image]])
    assert not system.opens(longer.heads, longer.layout)
    monkeypatch.setattr(type(model), "is_flash", True)
    with tools.columns_seen(model) as seen:
        lane.prefill(batch)
    assert seen == [(len(QUESTIONS), batch.layout.width)], "FlashAttention takes no padding in the middle"


def test_a_text_that_follows_the_question_or_is_short_is_not_shared() -> None:
    model = tiny_llava()
    model.chat_template = f"{ASKED}<image>"
    assert not model.system_prompt.ids, "the question comes first"
    for around, shared in (("a" * LEAST, True), ("a", False)):
        model.chat_template = f"{around}<image>{ASKED}"
        assert bool(model.system_prompt.ids) == shared
