"""LLaVA-OneVision: tiles without CLS, projected, cut off, resized, with newlines; against transformers and steps by hand."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import LlavaOnevisionProcessor, LlavaOnevisionVideoProcessor

from vtpbench.harness.check.family_subject import own_logits, stock_logits
from vtpbench.harness.models.anyres import NEWLINE, PackedAnyRes
from vtpbench.harness.models.dummy import describe_dummy, read_configuration
from vtpbench.harness.models.llava_onevision import LlavaOnevision
from vtpbench.harness.models.native_grid import native_grid
from vtpbench.harness.pruning.encoder_hooks import EncoderPlan
from vtpbench.harness.pruning.pipeline import Pipeline, Prompt
from vtpbench.harness.pruning.schedule import collecting, resolve
from vtpbench.pruners.base import Cut, Evidence, Grid, ModelShape, Pruner, TokenView
from vtpbench.pruners.errors import Unsupported, UserError
from vtpbench.pruners.registry import build

SHAPES = [(40, 30), (30, 40), (64, 64), (90, 20), (15, 61), (2, 90)]
POOLED, WHOLE = 1, 9
"""Tiles whose tokens a picture may have: so few that nearly all are resized, and so many that none is."""


@pytest.fixture(scope="module", params=[POOLED, WHOLE], ids=["pooled", "whole"])
def family(tiny: Callable[..., Any], request: pytest.FixtureRequest) -> LlavaOnevision:
    return tiny("llava_onevision", most=request.param)


def is_pooled(family: LlavaOnevision, image: Image.Image) -> bool:
    grid = family.native_grid(image.height, image.width)
    assert isinstance(grid, PackedAnyRes)
    return grid.shown.shape != grid.sides


@torch.inference_mode()
def stock_rows(family: LlavaOnevision, image: Image.Image) -> Tensor:
    """What the stock model puts into the prompt for an image, newlines and all."""
    inputs = family.image_processor([image], return_tensors="pt")
    (rows,) = family.model.model.get_image_features(inputs["pixel_values"], inputs["image_sizes"]).pooler_output
    return rows


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_stock_model_bit_by_bit(shape: tuple[int, int], family, tools) -> None:
    prompt = Prompt("key", "What is it?", [tools.picture(*shape)])
    assert torch.equal(own_logits(family, prompt), stock_logits(family, prompt))


def test_pictures_are_resized_or_not(tiny, tools) -> None:
    found = [
        [is_pooled(tiny("llava_onevision", most=most), tools.picture(*shape)) for shape in SHAPES] for most in (POOLED, 3, WHOLE)
    ]
    assert found == [[True, True, True, True, True, False], [False, False, True, False, False, False], [False] * 6]


def test_an_image_has_as_many_tokens_as_the_processor_of_transformers_says() -> None:
    config = read_configuration(describe_dummy("llava-onevision-7b").folder)
    facts = SimpleNamespace(
        num_image_tokens=729,
        vision_aspect_ratio="anyres_max_9",
        image_processor=SimpleNamespace(image_grid_pinpoints=config.image_grid_pinpoints),
    )
    facts._get_unpadded_features = lambda *sizes: LlavaOnevisionProcessor._get_unpadded_features(facts, *sizes)
    draw, tokens = random.Random(0), {(480, 640): 2929, (896, 1344): 8686}
    sizes = [*tokens, (384, 384), (1, 200), (200, 1), *((draw.randint(20, 3000), draw.randint(20, 3000)) for _ in range(300))]
    for height, width in sizes:
        found = PackedAnyRes.of(native_grid(config, (height, width)), 9)
        assert found.entering == LlavaOnevisionProcessor._get_number_of_features(facts, height, width, 384, 384)
        assert found.entering == tokens.get((height, width), found.entering) == len(found.lines)


def by_hand(family: LlavaOnevision, image: Image.Image, values: Tensor) -> Tensor:
    """Lay out values of patches, `(tiles, 16, channels)`, with the steps of transformers."""
    grid = native_grid(family.model.config, (image.height, image.width))
    down, sides = (grid.tiles - 1) // grid.across, family.native_grid(image.height, image.width).sides
    picture = values[1:].reshape(down, grid.across, 4, 4, -1).permute(4, 0, 2, 1, 3).flatten(1, 2).flatten(2, 3)
    picture = picture[:, grid.top : picture.shape[1] - grid.top, grid.left : picture.shape[2] - grid.left]
    if picture.shape[1:] != sides:
        picture = torch.nn.functional.interpolate(picture[None], sides, mode="bilinear")[0]
    return torch.cat([values[0], picture.flatten(1).T])


@pytest.mark.parametrize("layer", [0, 2, -1])
def test_evidence_is_that_of_eager_attention_laid_out_as_the_tokens_are(layer: int, family, tools) -> None:
    images = [tools.picture(40, 30), tools.picture(40, 30, 1), tools.picture(64, 64)]
    kinds = ("hidden", "received", "keys", "keys_all_heads", "projected")
    found = Pipeline(family, collecting(*(Evidence(kind, layer) for kind in kinds))).encode(images)
    tower, rows = family.vision_tower, stock_rows(family, images[1])
    tiles = family.image_processor([images[1]], return_tensors="pt")["pixel_values"][0]
    seen: dict[str, Tensor] = {}
    block = tower.encoder.layers[layer]
    handles = [
        block.self_attn.k_proj.register_forward_hook(lambda module, args, output: seen.update(keys_all_heads=output)),
        block.self_attn.register_forward_hook(lambda module, args, output: seen.update(weights=output[1])),
        block.register_forward_hook(lambda module, args, output: seen.update(hidden=output)),
    ]
    tower.set_attn_implementation("eager")
    with torch.inference_mode():
        tower(tiles)
    tower.set_attn_implementation("sdpa")
    for handle in handles:
        handle.remove()
    seen["received"] = seen["weights"].mean((1, 2))[..., None]
    seen["keys"] = seen["keys_all_heads"].unflatten(-1, (4, 8)).mean(2)
    evidence = found[0].evidence
    for kind in ("hidden", "received", "keys", "keys_all_heads"):
        expected = by_hand(family, images[1], seen[kind])
        mine = evidence[Evidence(kind, layer)][1]
        torch.testing.assert_close(mine.reshape(expected.shape), expected, rtol=0, atol=1e-5)
    tokens = rows[found[0].grid.lines != NEWLINE]
    assert torch.equal(evidence[Evidence("projected", layer)][1], tokens)
    assert torch.equal(found[0].features[1], tokens)


def kept_by_hand(family: LlavaOnevision, image: Image.Image, index: list[int], budget: int) -> list[int]:
    """Places of the prompt's rows that stay with some tokens, of which the base tile has 16."""
    rows, columns = family.native_grid(image.height, image.width).sides
    touched = {(token - 16) // columns for token in index if token >= 16}
    lone = [row for row in range(rows) if row not in touched][: max(0, budget - len(index) - len(touched))]
    places = [token if token < 16 else token + (token - 16) // columns for token in index]
    return sorted([*places, *(16 + (columns + 1) * row + columns for row in (*touched, *lone))])


@pytest.mark.parametrize("name", ["random", "divprune", "fastervlm", "grid"])
@pytest.mark.parametrize("shape", [(40, 30), (64, 64), (90, 20)])
def test_what_stays_is_what_the_stock_language_model_makes_of_these_rows(shape, name: str, family, tools) -> None:
    image = tools.picture(*shape)
    rows = stock_rows(family, image)
    budget = len(rows) // 2
    pipeline = Pipeline(family, build(name, {}), lambda n: budget)
    left = pipeline.select(pipeline.encode([image]), ["key"])[0]
    index = sorted(token for token in left.index.tolist() if token != NEWLINE)
    kept = rows[kept_by_hand(family, image, index, budget)]
    assert len(index) > budget // 2
    assert len(left.index) == len(kept) == budget
    ids = family.expanded_ids("What?", [budget])
    embeds = family.model.get_input_embeddings()(ids).detach().clone()
    embeds[ids == family.image_id] = kept
    with torch.inference_mode():
        expected = family.model.lm_head(family.decoder(inputs_embeds=embeds).last_hidden_state)
    batch = pipeline.assemble(["What?"], [[left]])
    assert torch.equal(tools.forward(family, batch)[0], expected)


@dataclass(frozen=True)
class EveryOther(Pruner):
    """Lets every other row go in layer 3, newlines as well."""

    def cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        return (Cut(3, n // 2),)

    def select(self, view: TokenView) -> Tensor:
        return (2 * torch.arange(view.cut.keep)).expand(len(view.features), -1)


def test_removing_rows_inside_is_masking_their_columns(family, tools) -> None:
    batch = tools.prepare(family, EveryOther(), 0.5, tools.MIXED[:1])
    logits, trace = tools.forward(family, batch)
    place, width = batch.layout.places[0], batch.layout.width
    assert trace.per_layer[0] == [place.length] * 3 + [place.length // 2] * 3
    seen = torch.ones(width, dtype=torch.bool)
    seen[place.start : place.start + place.length] = torch.arange(place.length) % 2 == 0
    seen[place.start + place.length - 1] &= place.length % 2 == 0
    mask = (torch.ones(width, width, dtype=torch.bool).tril() & seen)[None, None]
    mask = mask | torch.eye(width, dtype=torch.bool)
    whole = tools.prepare(family, build("vanilla", {}), None, tools.MIXED[:1])

    def hide(module: Any, args: Any, kwargs: Any) -> Any:
        return args, {**kwargs, "attention_mask": mask}

    handles = [layer.register_forward_pre_hook(hide, with_kwargs=True) for layer in family.decoder.layers[3:]]
    expected = tools.forward(family, whole)[0]
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(logits[0, -1], expected[0, -1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["random", "visionzip", "pool", "fastv"])
def test_the_budget_is_met_with_newlines(name: str, family, tools) -> None:
    for shape in SHAPES:
        for share in (0.05, 0.5, 1.0):
            pipeline = Pipeline(family, build(name, {}), lambda n, share=share: max(6, round(share * n)))
            if name == "fastv" and share < 0.4:  # two of six layers see all
                continue
            result = pipeline.run([Prompt("key", "What?", [tools.picture(*shape)])], 1)
            asked = max(6, round(share * result.images[0][0].original))
            assert sum(result.trace.per_layer[0]) / 6 == pytest.approx(asked, abs=1 if name == "fastv" else 0)


def test_who_acts_by_tile_chooses_in_the_base_tile_and_in_the_picture_by_their_sizes(family, tools) -> None:
    image, seen = tools.picture(64, 64), []
    pipeline = Pipeline(family, build("fastervlm", {}), lambda n: n // 2, lambda view, keep: seen.append((view, keep)))
    pipeline.select(pipeline.encode([image]), ["key"])
    view, keep = seen[-1]
    received, due = view.get("received")[0], view.cut.keep
    base = 16 * due // view.n
    first, second = received[:16].topk(base).indices, 16 + received[16:].topk(due - base).indices
    assert 0 < base < due
    assert keep.index[0].tolist() == sorted([*first.tolist(), *second.tolist()])


def test_what_its_tower_cannot_do_is_refused(family, tools) -> None:
    image = tools.picture(40, 30)
    for kind in ("cls", "cls_one_head"):
        with pytest.raises(Unsupported, match="no CLS token"):
            Pipeline(family, collecting(Evidence(kind, 3))).encode([image])
    with pytest.raises(Unsupported, match="no token can leave inside the vision tower"):
        Pipeline(family, build("tome", {}), lambda n: n // 2).encode([image])
    with pytest.raises(Unsupported, match="Downsample shrinks tiles"):
        Pipeline(family, build("downsample", {}), lambda n: n // 2).encode([image])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_feature_layer": -2}, "last vision layer"),
        ({"vision_feature_select_strategy": "default"}, "all patches"),
        ({"vision_aspect_ratio": "square"}, "anyres_max_N is supported, not square"),
    ],
)
def test_other_variants_are_refused(change: dict[str, Any], message: str) -> None:
    config = read_configuration(describe_dummy("llava-onevision-0.5b").folder)
    for key, value in change.items():
        setattr(config, key, value)
    with pytest.raises(Unsupported, match=message):
        LlavaOnevision.describe(config, "native")


def test_images_that_the_processor_padded_are_refused(tiny, tools) -> None:
    family = tiny("llava_onevision")
    inputs = family.image_processor([[tools.picture(40, 30), tools.picture(30, 40)]], return_tensors="pt")
    with pytest.raises(UserError, match="one flat list"):
        family.group_pixels(inputs["pixel_values"].flatten(0, 1), inputs["image_sizes"], (17, 17))


@dataclass(frozen=True)
class FirstInside(Pruner):
    """Lets the first ten patches of a tile go on to the MLP of the second layer."""

    def tower_cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        return (Cut(-3, 10),)

    def select(self, view: TokenView) -> Tensor:
        assert view.cls is None
        return torch.arange(view.cut.keep).expand(len(view.features), -1)


@torch.inference_mode()
def test_tokens_can_leave_a_tower_without_cls(tiny, tools) -> None:
    """As a family of one tile each could have it: the second layer by hand, then the others on what stays."""
    family = tiny("llava_onevision")
    pixels, tower = family.group([tools.picture(40, 30)])[0].pixels, family.vision_tower
    schedule = resolve(FirstInside(), 10, 16, Grid(1, 4, 4), replace(family.shape, whole_tower=""))
    found = family._run_tower(pixels, EncoderPlan(schedule, Grid(1, 4, 4), family.prefix), off_size=False)
    first, second, *others = tower.encoder.layers
    states = first(tower.embeddings(pixels), attention_mask=None)
    states = (states + second.self_attn(second.layer_norm1(states))[0])[:, :10]
    states = states + second.mlp(second.layer_norm2(states))
    for layer in others:
        states = layer(states, attention_mask=None)
    torch.testing.assert_close(found.features, family.behind_tower(states), rtol=0, atol=1e-5)
    assert torch.equal(found.index, torch.arange(10).expand(len(pixels), -1))


class Noting:
    """Stands where a model of transformers stands: notes what `generate` is given."""

    dtype = torch.float32

    def __init__(self) -> None:
        self.inputs: dict[str, Any] = {}

    def generate(self, **inputs: Any) -> Tensor:
        self.inputs = inputs
        return inputs["input_ids"]


PICTURES = {"small": [(40, 30)], "large": [(1400, 900)], "tall": [(40, 300)], "two": [(64, 64), (30, 40)]}


@pytest.mark.parametrize("sizes", PICTURES.values(), ids=PICTURES)
def test_it_is_asked_as_lmms_eval_asks_it(sizes: list[tuple[int, int]], tiny, tools, monkeypatch) -> None:
    """Ids and pixels of `llava_hf` in its chat form, which lmms-eval takes by default."""
    stub = ModuleType("decord")  # reads videos, which nothing here shows
    monkeypatch.setitem(sys.modules, "decord", stub)
    stub.VideoReader = stub.cpu = None  # type: ignore[attr-defined]
    family, images, question = tiny("llava_onevision"), [tools.picture(*size) for size in sizes], "What is left of it?"
    made: Any = object.__new__(importlib.import_module("lmms_eval.models.chat.llava_hf").LlavaHf)
    made._tokenizer, made._device, made.batch_size_per_gpu, made.use_cache = family.tokenizer, torch.device("cpu"), 1, True
    made._rank, made._world_size, made._model = 0, 1, Noting()
    made.accelerator = SimpleNamespace(is_main_process=False, unwrap_model=lambda model: model)
    made.task_dict, made.cache_hook = {"mine": {"test": {0: None}}}, SimpleNamespace(add_partial=lambda *_: None)
    parts = {"tokenizer": family.tokenizer, "video_processor": LlavaOnevisionVideoProcessor()}
    facts = {"num_image_tokens": 16, "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_3"}
    made._image_processor = LlavaOnevisionProcessor(family.image_processor, **parts, chat_template=family.chat_template, **facts)
    shown = [{"type": "image", "url": image} for image in images]
    messages = [{"role": "user", "content": [*shown, {"type": "text", "text": question}]}]
    made.generate_until([SimpleNamespace(args=("", lambda doc: messages, {}, 0, "mine", "test"))])
    ours = family.stock_inputs(question, images)
    for name in ("input_ids", "pixel_values", "image_sizes"):
        assert torch.equal(ours[name], made._model.inputs[name]), name
    for group in family.group(images):
        for member, pixels in zip(group.members, family.pixels(group), strict=True):
            assert torch.equal(pixels, made._model.inputs["pixel_values"][member, : len(pixels)])
