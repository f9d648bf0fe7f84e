"""Questions behind one prefill of their picture are answered as behind their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from pretended_gpu import moved, pretended_gpu
from pruner_options import DECODERS, options_for

from vtpbench.harness.models.family import Family
from vtpbench.harness.models.tiny import TINY, tiny_llava
from vtpbench.harness.pruning.batch import ImageTokens, PromptBatch
from vtpbench.harness.pruning.key_value_cache import buffered
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.pruning.shared_prefix import PASS, distinct_prefixes, prefill_prefixes, prefill_whole
from vtpbench.pruners.base import Pruner, Selection, TokenView
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.registry import build


@dataclass(frozen=True)
class Uneven(Pruner):
    """Keeps the first tokens of an image, of every second one three fewer."""

    def reduce(self, view: TokenView) -> Selection:
        index = torch.arange(view.cut.keep).expand(len(view.keys), -1)
        fewer = torch.tensor([3 * (int(key) % 2) for key in view.keys])
        return Selection(index, valid=index < view.cut.keep - fewer[:, None])


INSIDE = ["fastv", "sparsevlm", "pyramiddrop", "dart", "vscan"]
QUESTIONS = ["What?", "Is there a thing in the picture, or is there none?", "Which?", "How many of them are there?", "Hm?"]


def half(n: int) -> int:
    return max(5, n // 2 // 5 * 5)


def pipeline(model: Family, pruner: Pruner, **options: Any) -> Pipeline:
    whole, inside = (type(pruner).__name__.lower() in names for names in (["vanilla"], INSIDE))
    return Pipeline(model, pruner, (lambda n: None) if whole else (lambda n: n // 2) if inside else half, **options)


def pruned(pipeline: Pipeline, tools: Any, count: int = 2) -> list[ImageTokens]:
    left = pipeline.select(pipeline.encode([tools.picture(40, 30, n) for n in range(count)]), [str(n) for n in range(count)])
    return [left[n] for n in range(count)]


def new_cache(model: Family) -> partial[Any]:
    return partial(buffered, model.shape.decoder_layers)


def batch_of(pipeline: Pipeline, tools: Any) -> PromptBatch:
    """Five questions about two pictures."""
    images = pruned(pipeline, tools)
    return pipeline.assemble(QUESTIONS, [[images[n % 2]] for n in range(len(QUESTIONS))])


def pictures_of(batch: PromptBatch) -> tuple[int, ...] | None:
    """Number of each prompt's picture where the batch shares."""
    shared = distinct_prefixes(batch)
    return None if shared is None else shared.pictures


@pytest.mark.usefixtures("always_shared", "question_rows")
@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["vanilla", "random", "visionzip", "pool", "prumerge-plus", "uneven", *INSIDE])
def test_answers_counts_and_kept_tokens_are_those_of_whole_prompts(tools: Any, family: str, attention: str, name: str) -> None:
    model = TINY[family](attention)
    pruner = Uneven() if name == "uneven" else build(name, options_for(name, family))
    batch = batch_of(pipeline(model, pruner), tools)
    whole, by_itself = pipeline(model, pruner).generate(batch, 8)
    shared, together = pipeline(model, pruner, share_prefix=True).generate(batch, 8)
    assert pictures_of(batch) == (0, 1, 0, 1, 0)
    assert shared == whole
    assert (together.per_layer, together.written, together.ended) == (by_itself.per_layer, by_itself.written, by_itself.ended)
    assert together.finite == by_itself.finite
    for image, cuts in by_itself.kept.items():
        assert {at: index.tolist() for at, index in together.kept[image].items()} == {
            at: index.tolist() for at, index in cuts.items()
        }


@pytest.mark.usefixtures("always_shared", "question_rows")
@pytest.mark.parametrize("behind", [False, True], ids=["whole", "behind the system prompt"])
@pytest.mark.parametrize("name", [*INSIDE, "fastv early"])
@pytest.mark.parametrize("family", DECODERS)
def test_logits_and_keys_are_those_of_whole_prompts_where_tokens_leave_inside(
    tools: Any, family: str, name: str, behind: bool
) -> None:
    model = TINY[family]()
    pruner = build("fastv", {"layer": 1}) if name == "fastv early" else build(name, options_for(name, family))
    batch = batch_of(pipeline(model, pruner), tools)
    whole = prefill_whole(model, batch, new_cache(model))
    batch = batch.behind(model.system_prompt) if behind else batch
    shared = distinct_prefixes(batch)
    assert shared is not None
    assert shared.layers == min(cut.at for cut in batch.images[0].later_cuts)
    together = prefill_prefixes(model, batch, new_cache(model), shared)
    torch.testing.assert_close(together.logits, whole.logits, rtol=1e-4, atol=1e-5)
    assert len(together.start.stages(0)) == len(whole.start.stages(0)) > 1
    for own, expected in zip(together.start.stages(0), whole.start.stages(0), strict=True):
        assert torch.equal(own.next, expected.next)
        layer, other = (begun.start.cache.layers[own.at] for begun in (together, whole))
        for row, (real, truth) in enumerate(zip(own.valid, expected.valid, strict=True)):
            torch.testing.assert_close(layer.keys[row][:, real], other.keys[row][:, truth], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("always_shared")
def test_a_picture_enters_the_first_layers_once_where_tokens_leave_inside(tools: Any, question_rows: str) -> None:
    model = tiny_llava()
    own = pipeline(model, build("fastv", {"layer": 1}), share_prefix=True)
    batch = batch_of(own, tools)
    system, image, _ = (span.length for span in batch.layout.rows[0])
    assert len(model.system_prompt) == system
    with tools.columns_seen(model) as seen, tools.columns_seen(model, layer=2) as behind:
        own.generate(batch, 1)
    assert seen == [(2, image), (5, batch.layout.width - system - image) if question_rows == "alone" else (2, 101)]
    kept = batch.images[0].later_cuts[0].keep
    assert kept < image
    assert behind == [(5, batch.layout.width - system - image + kept)]


@pytest.mark.usefixtures("always_shared", "question_rows")
@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("pruner", [build("visionzip", {}), Uneven()], ids=repr)
def test_logits_behind_a_shared_prefix_are_those_of_whole_prompts(tools: Any, family: str, pruner: Pruner) -> None:
    model = TINY[family]()
    batch = batch_of(pipeline(model, pruner), tools)
    shared = distinct_prefixes(batch)
    assert shared is not None
    behind = prefill_prefixes(model, batch, new_cache(model), shared)
    assert behind.start.valid is not None, "questions differ in length"
    with torch.inference_mode():
        for row, length in enumerate(batch.layout.lengths):
            alone = model.decoder(
                inputs_embeds=batch.embeds[row : row + 1, -length:],
                position_ids=batch.positions[..., row : row + 1, -length:],
                **added_to(model, batch, row, length),
            ).last_hidden_state
            expected = model.logits(alone[:, -1:])[0]
            torch.testing.assert_close(behind.logits[row], expected, rtol=1e-4, atol=1e-5)


def added_to(model: Family, batch: PromptBatch, row: int, length: int) -> dict[str, Any]:
    """What the stock decoder is told of one prompt's image where features are added inside it."""
    shown = model.stock_arguments(batch, batch.layout.width).get("visual_pos_masks")
    if shown is None:
        return {}
    return {"visual_pos_masks": shown[row : row + 1, -length:], "deepstack_visual_embeds": list(batch.added[row])}


@pytest.mark.usefixtures("always_shared")
def test_a_picture_enters_the_language_model_once(tools: Any, question_rows: str) -> None:
    model = tiny_llava()
    own = pipeline(model, build("vanilla", {}), share_prefix=True)
    batch = batch_of(own, tools)
    system, image, _ = (span.length for span in batch.layout.rows[0])
    assert len(model.system_prompt) == system, "behind it everything stands"
    with tools.columns_seen(model) as seen:
        own.generate(batch, 2)
    assert seen[0] == (2, image)
    alone = (5, batch.layout.width - system - image)
    assert seen[1] == (alone if question_rows == "alone" else (2, 101)), "several questions behind one prefix"
    assert seen[2] == (5, 1), "a step of all answers"


@pytest.mark.usefixtures("always_shared")
@pytest.mark.parametrize("name", ["visionzip", *INSIDE])
def test_on_a_gpu_questions_stand_side_by_side_and_the_host_does_not_wait(tools: Any, name: str) -> None:
    model = tiny_llava()
    own = pipeline(model, build(name, {}), share_prefix=True)
    expected, _ = own.generate(batch_of(own, tools), 4)
    with pretended_gpu() as gpu, moved(model.model), tools.columns_seen(model) as seen:
        batch = batch_of(own, tools)
        assert model.system_prompt.cached[0][0].device.type == "cuda", "made anew where the model is"
        seen.clear()
        gpu.waits.clear()
        begun = own.prefill(batch)
        assert not gpu.waits
        assert own.decode(begun, 4)[0] == expected
    assert seen[0][0] == 2 <= seen[1][0] < len(QUESTIONS), "several questions behind a picture"


@pytest.mark.usefixtures("always_shared")
def test_pictures_of_which_other_numbers_of_tokens_are_left_share_a_pass(tools: Any) -> None:
    model = tiny_llava()
    own = pipeline(model, Uneven(), share_prefix=True)
    batch = batch_of(own, tools)
    left = [image.length for _, image, _ in batch.layout.rows]
    assert left[0] == left[1] + 3
    assert model.system_prompt.ids
    with tools.columns_seen(model) as seen:
        own.generate(batch, 2)
    assert seen[0] == (2, max(left))


@pytest.mark.usefixtures("always_shared")
def test_what_cannot_share_is_prefilled_whole(tools: Any) -> None:
    model = tiny_llava()
    own = pipeline(model, build("vanilla", {}))
    first, second = pruned(own, tools)
    several = {
        "every picture once": [[first], [second]],
        "two pictures in a prompt": [[first, second], [first, second]],
        "a prompt without a picture": [[first], [], [first]],
        "one prompt": [[first]],
    }
    for why, images in several.items():
        assert distinct_prefixes(own.assemble(QUESTIONS[: len(images)], images)) is None, why
    fine = own.assemble(QUESTIONS[:2], [[first], [first]])
    assert pictures_of(fine) == (0, 0)
    other = replace(second, features=second.features[:5], index=second.index[:5])
    assert pictures_of(own.assemble(QUESTIONS[:3], [[first], [other], [first]])) == (0, 1, 0)
    assert distinct_prefixes(replace(fine, heads=((1,), (2,)))) is None


@dataclass(frozen=True)
class Twice(Pruner):
    """Names one token twice."""

    def reduce(self, view: TokenView) -> Selection:
        return Selection(torch.zeros(len(view.features), view.cut.keep, dtype=torch.int64))


@pytest.mark.usefixtures("always_shared")
def test_a_wrong_selection_is_refused_behind_a_shared_prefix_too(tools: Any) -> None:
    own = pipeline(tiny_llava(), Twice(), share_prefix=True)
    batch = batch_of(own, tools)
    assert distinct_prefixes(batch) is not None
    with pytest.raises(UserError, match="Twice"):
        own.generate(batch, 2)


def test_a_batch_shares_where_two_passes_cost_less_than_one(tools: Any) -> None:
    own = pipeline(tiny_llava(), build("vanilla", {}))
    first, second = pruned(own, tools)
    seldom = own.assemble(["Why?"] * 3, [[first], [second], [first]])
    often = own.assemble(["Why?"] * 16, [[first], [second]] * 8)
    assert pictures_of(seldom) is None
    assert pictures_of(often) == (0, 1) * 8
    shared = distinct_prefixes(often)
    assert shared is not None
    prefix = shared.prefixes.width
    assert PASS + 2 * prefix < shared.cost < 16 * often.layout.width
