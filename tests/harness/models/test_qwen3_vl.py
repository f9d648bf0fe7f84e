"""DeepStack: what is added to the first decoder layers follows the tokens that stay, before and inside the language model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vtpbench.harness.check.subject import PrunerOnModel
from vtpbench.harness.models.qwen3_vl import Qwen3VL
from vtpbench.harness.models.tiny import tiny_qwen3_vl
from vtpbench.harness.pruning.batch import PromptBatch
from vtpbench.harness.pruning.pipeline import Pipeline, Prompt
from vtpbench.harness.pruning.sequence import CutResult
from vtpbench.pruners.base import Selection
from vtpbench.pruners.errors import Unsupported
from vtpbench.pruners.registry import build

WIDTH = 32


@pytest.fixture(scope="module")
def family(tiny) -> Qwen3VL:
    return tiny("qwen3_vl")


@torch.inference_mode()
def tower(family: Qwen3VL, tools) -> list[Tensor]:
    """What the stock tower makes of the first picture: for the language model, then for each level, `(20, width)`."""
    inputs = family.image_processor([tools.picture(40, 30)], return_tensors="pt")
    output = family.vision_tower(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
    return [output.pooler_output, *output.deepstack_features]


@torch.inference_mode()
def stock_decoder(family: Qwen3VL, batch: PromptBatch, levels: list[Tensor] | None) -> Tensor:
    """Logits of the stock language model on a batch of one prompt, told by hand where vision tokens are and what is added."""
    place = batch.layout.places[0]
    shown = torch.zeros(1, batch.layout.width, dtype=torch.bool)
    shown[0, place.start : place.start + place.length] = True
    added = {} if levels is None else {"visual_pos_masks": shown, "deepstack_visual_embeds": levels}
    output = family.decoder(inputs_embeds=batch.embeds, position_ids=batch.positions, use_cache=False, **added)
    return family.model.lm_head(output.last_hidden_state)


def test_features_are_all_levels_one_behind_the_other(family, tools) -> None:
    (found,) = Pipeline(family).encode([tools.picture(40, 30)])
    assert torch.equal(found.features[0], torch.cat(tower(family, tools), dim=-1))


@pytest.mark.parametrize("budget", [0.75, 0.5, 0.25])
def test_what_stays_before_the_language_model_keeps_its_levels(budget: float, family, tools) -> None:
    """Bit by bit what the stock language model gives for the kept rows of every level, put together by hand."""
    batch = tools.prepare(family, build("random", {}), budget, tools.MIXED[:1])
    kept, levels = batch.images[0].index, tower(family, tools)
    assert 0 < len(kept) < 20
    place = batch.layout.places[0]
    assert torch.equal(batch.embeds[0, place.start : place.start + place.length], levels[0][kept])
    logits, _ = tools.forward(family, batch)
    assert torch.equal(logits, stock_decoder(family, batch, [level[kept] for level in levels[1:]]))
    without = stock_decoder(family, batch, None)
    assert (logits - without).abs().max() > 0.1  # forgotten levels would show


@pytest.mark.parametrize("layer", [1, 2, 3, 4])
def test_what_leaves_inside_takes_its_later_levels_along(layer: int, family, tools) -> None:
    """Against the whole prompt of the stock language model, where the columns that left are masked from that layer on."""
    batch = tools.prepare(family, build("fastv", {"layer": layer}), 0.75, tools.MIXED[:1])
    logits, trace = tools.forward(family, batch)
    place, kept = batch.layout.places[0], trace.kept[0][layer]
    assert 0 < len(kept) < 20
    gone = torch.ones(batch.layout.width, dtype=torch.bool)
    gone[: place.start] = gone[place.start + place.length :] = False
    gone[place.start + kept] = False

    def hide(module, args, kwargs):
        seen = torch.ones(len(gone), len(gone), dtype=torch.bool).tril()
        seen[:, gone] = False
        return args, {**kwargs, "attention_mask": seen.fill_diagonal_(True)[None, None]}

    handles = [each.register_forward_pre_hook(hide, with_kwargs=True) for each in family.decoder.layers[layer:]]
    expected = stock_decoder(family, batch, tower(family, tools)[1:])
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(logits[0, -1], expected[0, -1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("levels", [(), (3,), (2, 0)])
def test_other_numbers_of_levels_and_any_order(levels: tuple[int, ...], tools) -> None:
    family = tiny_qwen3_vl(levels=levels)
    images = [tools.picture(40, 30)]
    inputs = family.stock_inputs("What is it?", images)
    with torch.inference_mode():
        expected = family.model(**inputs, attention_mask=torch.ones_like(inputs["input_ids"])).logits
    for pruner in ("vanilla", "fastv", "random"):
        logits, _ = tools.forward(family, tools.prepare(family, build(pruner, {}), 1.0, tools.MIXED[:1]))
        assert torch.equal(logits, expected)
    assert tools.prepare(family, build("random", {}), 0.5, tools.MIXED[:1]).images[0].features.shape[1] == WIDTH * (
        1 + len(levels)
    )


def test_more_levels_than_layers_are_refused(family) -> None:
    with pytest.raises(Unsupported, match="features for 6 of 6 decoder layers"):
        tiny_qwen3_vl(levels=[0, 1, 2, 3, 0, 1])


def test_average_rows_average_every_level(family, tools) -> None:
    """All tokens in one: the mean of what enters, and of what is added later."""
    pipeline = Pipeline(family, build("pool", {}), lambda n: 1)
    left = pipeline.select(pipeline.encode([tools.picture(40, 30)]), ["key"])[0]
    torch.testing.assert_close(left.features[0], torch.cat(tower(family, tools), dim=-1).mean(0), rtol=0, atol=1e-5)


def test_rows_in_the_language_models_space_get_the_levels_of_their_tokens(family, tools) -> None:
    pipeline = Pipeline(family, build("vscan", {"positions": "keep"}), lambda n: 8)
    left = pipeline.select(pipeline.encode([tools.picture(40, 30)]), ["key"])[0]
    levels = torch.cat(tower(family, tools)[1:], dim=-1)
    assert torch.equal(left.features[:, WIDTH:], levels[left.index])


def test_a_row_that_continues_no_token_gets_nothing_added() -> None:
    rows = torch.arange(12.0).reshape(2, 3, 2) + 1
    merged = CutResult(torch.tensor([2, -1]), torch.tensor([5, -1]), torch.zeros(2, 2))
    assert merged.continued(rows).tolist() == [[[5, 6], [0, 0]], [[11, 12], [0, 0]]]
    kept = CutResult(torch.tensor([0, 2]), torch.tensor([0, 5]), None)
    assert torch.equal(kept.continued(rows), rows[:, [0, 2]])


@pytest.mark.usefixtures("always_shared")
def test_a_shared_prefix_has_its_levels(family, tools) -> None:
    """Questions about one picture behind one prefill of it answer as each alone."""
    image = tools.picture(40, 30)
    prompts = [Prompt("a", "What is it?", [image]), Prompt("b", "And is there anything else?", [image])]
    pipeline = Pipeline(family, build("random", {}), lambda n: 8, share_prefix=True)
    (found,) = pipeline.encode([image])
    shown = pipeline.select([found], ["a"], ["What is it?"])[0]
    batch = pipeline.assemble([prompt.text for prompt in prompts], [[shown], [shown]])
    together, _ = pipeline.generate(batch, 6)
    alone = [pipeline.generate(pipeline.assemble([prompt.text], [[shown]]), 6)[0][0] for prompt in prompts]
    assert together == alone


def test_a_selection_of_another_width_is_left_to_validation(family, tools) -> None:
    (found,) = Pipeline(family, build("random", {}), lambda n: 2).encode([tools.picture(40, 30)])
    pipeline = Pipeline(family, build("random", {}), lambda n: 2)
    view = pipeline._view(found, ["key"], [])
    wrong = Selection(torch.tensor([[0, 1]]), features=torch.zeros(1, 2, 7), projected=True)

    class Wrong:
        def choose(self, view: object) -> Selection:
            return wrong

    assert family.choose(view, Wrong()) is wrong


def test_the_checks_reference_has_the_levels(family) -> None:
    subject = PrunerOnModel(build("random", {}), lambda **options: tiny_qwen3_vl(**options))
    full = subject.vanilla(subject.questions[:1]).batch
    more = family.stock_arguments(full, full.layout.width + 2)
    assert more["visual_pos_masks"].sum() == full.layout.places[0].length
    assert [tuple(level.shape) for level in more["deepstack_visual_embeds"]] == [(full.layout.places[0].length, WIDTH)] * 3
