"""InternVL: tiles and their thumbnail, tokens that are made of four patches, both language models."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.internvl import modeling_internvl

from vtpbench.harness.check.family_subject import own_logits, stock_logits
from vtpbench.harness.models.dummy import describe_dummy, noise_picture, read_configuration
from vtpbench.harness.models.internvl import InternVL
from vtpbench.harness.models.internvl_tiles import TilesInTurn, arrangement
from vtpbench.harness.models.load import verify_template
from vtpbench.harness.models.tiny import tiny_internvl
from vtpbench.harness.pruning.pipeline import Pipeline, Prompt
from vtpbench.harness.pruning.schedule import collecting
from vtpbench.pruners.base import Evidence, Grid
from vtpbench.pruners.errors import Infeasible, Unsupported, UserError
from vtpbench.pruners.registry import build

SHAPES = [(40, 30), (30, 40), (90, 20), (15, 61), (20, 20)]
"""Of pictures that make 3 x 2, 2 x 3, 1 x 4, 4 x 1 and, if small enough for it, one tile."""


@pytest.fixture(scope="module")
def several(tiny) -> InternVL:
    return tiny("internvl", tiles=(1, 6), side=4)


@pytest.fixture(scope="module")
def newer(tiny) -> InternVL:
    """InternVL 3.5's language model, and the larger tower's norms."""
    return tiny("internvl", tiles=(1, 6), side=4, text="qwen3", normed=True)


@pytest.fixture(params=["several", "newer"])
def family(request) -> InternVL:
    return request.getfixturevalue(request.param)


@torch.inference_mode()
def stock_features(family: InternVL, image: Any) -> Tensor:
    """What the stock model makes of a picture, tile after tile, the thumbnail last, `(n, width)`."""
    (group,) = family.group([image])
    return family.model.model.get_image_features(pixel_values=group.pixels, return_dict=True).pooler_output.flatten(0, 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_answers_are_those_of_the_stock_model_bit_by_bit(shape: tuple[int, int], family, tools) -> None:
    question = Prompt("key", "What is it?", [tools.picture(*shape)])
    assert torch.equal(own_logits(family, question), stock_logits(family, question))


def test_a_prompt_with_several_pictures_is_answered_as_by_the_stock_model(family, tools) -> None:
    question = Prompt("key", "How do these differ?", [tools.picture(*shape) for shape in SHAPES[:3]])
    torch.testing.assert_close(own_logits(family, question), stock_logits(family, question), rtol=0, atol=1e-5)


def test_grids_are_those_of_the_image_processor(several, tools) -> None:
    images = [tools.picture(*shape) for shape in SHAPES]
    told = several.image_processor(images, crop_to_patches=True, return_tensors="pt")
    grids = [several._grid(image) for image in images]
    assert [grid.tiles for grid in grids] == told["num_patches"].tolist() == [7, 7, 5, 5, 1]
    assert [grid.across for grid in grids] == [3, 2, 4, 1, 1]


def test_a_published_picture_has_as_many_tokens_as_published() -> None:
    family = tiny_internvl(side=16)
    family.image_processor = InternVL.published_processor(read_configuration(describe_dummy("internvl3-2b").folder))
    sizes = {(640, 480): 3328, (1344, 896): 1792, (448, 448): 256}
    assert {size: family._grid(noise_picture(*size)).n for size in sizes} == sizes


@pytest.mark.parametrize("shape", SHAPES)
def test_how_tiles_lie_is_found_from_the_thumbnail(shape: tuple[int, int], several, tools) -> None:
    (group,) = several.group([tools.picture(*shape)])
    (found,) = several.group_pixels(group.pixels, None, [group.tokens])
    assert found.grid == group.grid


@pytest.mark.parametrize(("down", "across"), [(1, 12), (2, 6), (3, 4), (4, 3), (6, 2), (12, 1)])
def test_twelve_tiles_are_told_apart(down: int, across: int) -> None:
    picture = torch.rand(3, down * 8, across * 8, generator=torch.Generator().manual_seed(0))
    thumbnail = torch.nn.functional.interpolate(picture[None], (8, 8), mode="bicubic", antialias=True)
    tiles = picture.unflatten(1, (down, 8)).unflatten(3, (across, 8)).permute(1, 3, 0, 2, 4).flatten(0, 1)
    assert arrangement(torch.cat([tiles, thumbnail])) == (down, across)


@pytest.mark.parametrize("counts", [[96], [112, 16], [100], []])
def test_tiles_that_are_not_those_of_the_prompt_are_refused(counts: list[int], several, tools) -> None:
    (group,) = several.group([tools.picture(40, 30)])
    with pytest.raises(UserError, match=r"7 tiles of 16 tokens do not fit images of .* ask for one answer"):
        several.group_pixels(group.pixels, None, counts)


def test_the_thumbnail_is_the_base_tile_and_enters_last(several, tools) -> None:
    image = tools.picture(40, 30)
    (found,) = Pipeline(several).encode([image])
    alone = tiny_internvl(tiles=(1, 6), side=4, preprocessing="single448")
    (single,) = Pipeline(alone).encode([image])
    torch.testing.assert_close(found.features[:, :16], single.features, rtol=0, atol=1e-5)
    assert single.grid == TilesInTurn(1, 4, 4)
    left = Pipeline(several).select([found], ["key"])[0]
    assert left.index.tolist() == [*range(16, 112), *range(16)]
    with torch.inference_mode():
        assert torch.equal(several.project(left.features), stock_features(several, image))


def test_rows_that_are_merged_stay_in_the_order_of_their_kinds(several) -> None:
    """A base tile of one token and two tiles: rows without a place stay where they are, the others enter tile after tile."""
    grid = TilesInTurn(3, 1, 1, across=2)
    assert grid.raster(torch.tensor([0, 1, 2, -1, 0, 2])).tolist() == [1, 2, 0, 3, 5, 4]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("budget", [0.5, 0.125])
def test_what_stays_is_what_the_stock_model_gets_without_the_others(shape, budget, family, tools) -> None:
    """Put together by hand: rows of the stock model's features, and the stock language model on a prompt of so many."""
    image = tools.picture(*shape)
    pipeline = Pipeline(family, build("random", {}), lambda n: round(budget * n))
    encoded = pipeline.encode([image])
    batch = pipeline.assemble(["What is it?"], [[pipeline.select(encoded, ["key"])[0]]])
    logits, _ = tools.forward(family, batch)
    n, base = encoded[0].grid.n, 16
    kept = batch.images[0].index
    place = torch.where(kept < base, kept + n - base, kept - base)  # the thumbnail is first for us, last for the stock model
    assert len(place) == round(budget * n)
    assert all(a < b for a, b in pairwise(place.tolist()))
    ids = family.expanded_ids("What is it?", [len(place)])
    embeds = family.model.get_input_embeddings()(ids)
    embeds[ids == family.image_id] = stock_features(family, image)[place]
    with torch.inference_mode():
        expected = family.model(inputs_embeds=embeds).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)  # the projector sees fewer rows at once: not bit-equal


def test_evidence_is_what_the_layers_compute(family, tools, monkeypatch) -> None:
    """Against the tower's own eager attention: means over the four patches of a token, tokens in raster order, CLS left out."""
    image, layers, seen = tools.picture(40, 30), (0, 1, 3), {}
    kinds = ("received", "cls", "cls_one_head", "keys", "keys_all_heads", "hidden")
    needs = {Evidence(kind, layer) for kind in kinds for layer in layers} | {Evidence("projected")}
    (found,) = Pipeline(family, collecting(*needs)).encode([image])
    eager = modeling_internvl.eager_attention_forward

    def spy(module, query, key, *rest, **kwargs):
        output, weights = eager(module, query, key, *rest, **kwargs)
        seen[module] = query, key, weights
        return output, weights

    monkeypatch.setattr(modeling_internvl, "eager_attention_forward", spy)
    tower = family.vision_tower
    tower.set_attn_implementation("eager")
    with torch.inference_mode():
        states = tower(pixel_values=family.group([image])[0].pixels, output_hidden_states=True).hidden_states
    tower.set_attn_implementation("sdpa")

    def tokens(patches: Tensor) -> Tensor:
        """By hand: `(tiles, 1 + 64, ...)` to `(112, ...)`."""
        rows = patches[:, 1:].unflatten(1, (8, 8))
        means = (rows[:, ::2, ::2] + rows[:, ::2, 1::2] + rows[:, 1::2, ::2] + rows[:, 1::2, 1::2]) / 4
        in_turn = means.flatten(1, 2)
        return torch.cat([in_turn[-1], *in_turn[:-1]])

    for layer in layers:
        query, key, weights = seen[tower.encoder.layer[layer].attention]
        whole = [x.transpose(1, 2).flatten(2) for x in (query, key)]
        one_head = (whole[0][:, :1] @ whole[1].mT * 32**-0.5).softmax(-1)[:, 0]
        expected = {
            "received": weights.mean((1, 2)),
            "cls": weights[:, :, 0].mean(1),
            "cls_one_head": one_head,
            "keys": key.mean(1),
            "keys_all_heads": whole[1],
            "hidden": states[layer + 1],
        }
        for kind, value in expected.items():
            torch.testing.assert_close(found.evidence[Evidence(kind, layer)][0], tokens(value), rtol=0, atol=1e-5)
    entered = stock_features(family, image)
    assert torch.equal(found.evidence[Evidence("projected")][0], torch.cat([entered[-16:], entered[:-16]]))


def test_a_picture_alone_is_one_tile_for_pruners_that_share_a_budget(tiny, tools) -> None:
    family = tiny("internvl", side=4, preprocessing="single448")
    config = family.model.config
    assert (InternVL.describe(config, "single448")[1], InternVL.describe(config, "lmms_eval")[1]) == (16, None)
    for pruner in ("visionzip", "hiprune", "vscan", "downsample"):
        result = Pipeline(family, build(pruner, {}), lambda n: 5).run([Prompt("key", "What?", [tools.picture(40, 30)])], 1)
        assert sum(result.trace.per_layer[0]) / 6 == pytest.approx(5, abs=1)


def test_tiles_share_a_quarter_but_not_a_third(several, tools) -> None:
    asked = [Prompt("key", "What?", [tools.picture(40, 30)])]
    result = Pipeline(several, build("visionzip", {}), lambda n: n // 4).run(asked, 1)
    assert result.trace.per_layer[0] == [28] * 6
    with pytest.raises(Infeasible, match="37 cannot be shared equally by 7 tiles"):
        Pipeline(several, build("visionzip", {}), lambda n: n // 3).run(asked, 1)


def test_downsampling_shrinks_every_tile(several, tools) -> None:
    (found,) = Pipeline(several, build("downsample", {}), lambda n: n // 4).encode([tools.picture(40, 30)])
    assert (found.grid, found.features.shape[1], found.original) == (TilesInTurn(7, 2, 2, across=3), 28, 112)


def test_images_without_tokens_take_their_wrappers_with_them(several, tools) -> None:
    batch = tools.prepare(several, build("text-only", {}), 0.5, tools.MIXED[:1])
    plain = tools.prepare(several, build("vanilla", {}), None, [("What is it?", [])])
    assert torch.equal(batch.embeds, plain.embeds)


def test_prompts_wrap_images_and_take_a_quoted_marker_for_text(several) -> None:
    assert "user\n<img><IMG_CONTEXT></img>\n<img><IMG_CONTEXT></img>\nWhat?" in several.render("What?", 2)
    ids = several.token_ids(several.render("Is <IMG_CONTEXT> in <img>?", 1))
    assert ids.count(several.image_id) == 1
    assert ids.count(several.tokenizer.convert_tokens_to_ids("<img>")) == 1


def test_a_template_of_older_conversions_is_refused(several) -> None:
    template = several.chat_template.replace("<IMG_CONTEXT>", "<image>")
    older = InternVL(several.model, several.tokenizer, several.image_processor, template)
    with pytest.raises(UserError, match="gives 0 image tokens for 2 images"):
        verify_template(older, "older")


def test_no_token_leaves_inside_the_tower(several, tools) -> None:
    with pytest.raises(Unsupported, match=r"inside the vision tower of InternVL, .*; set stage: post"):
        Pipeline(several, build("tome", {}), lambda n: n // 2).encode([tools.picture(40, 30)])


@pytest.mark.parametrize(
    ("where", "values", "words"),
    [
        ("", {"vision_feature_layer": -2}, "last layer"),
        ("", {"vision_feature_select_strategy": "full"}, "without CLS"),
        ("", {"downsample_ratio": 0.25}, "joins 2 x 2 patches"),
        ("vision_config", {"use_mean_pooling": False}, "without a norm"),
        ("vision_config", {"image_size": (32, 24)}, "32 x 24 pixels"),
        ("text_config", {"use_sliding_window": True, "layer_types": ["sliding_attention"]}, "use_sliding_window to false"),
    ],
)
def test_variants_that_would_be_wrong_are_refused(where: str, values: dict[str, Any], words: str, several) -> None:
    config = several.model.config
    parts = {name: SimpleNamespace(**vars(getattr(config, name))) for name in ("vision_config", "text_config")}
    changed = SimpleNamespace(**{**vars(config), **parts})
    vars(vars(changed)[where] if where else changed).update(values)
    with pytest.raises(Unsupported, match=words):
        InternVL.describe(changed, "dynamic")


def test_boxes_divide_the_picture_among_tiles(several, tools) -> None:
    """The whole picture above, the tiles below: those of a row side by side, each over a third of the width."""
    image = tools.picture(40, 30)
    canvas, boxes = several.boxes(image, several._grid(image))
    share, shift = 30 / canvas.height, (canvas.height - 30) / canvas.height
    assert boxes[0] == pytest.approx([0, 0, 1 / 4, share / 4])
    first_of_each = boxes[16::16]
    assert first_of_each[:, 0] == pytest.approx([0, 1 / 3, 2 / 3] * 2)
    assert first_of_each[:, 1] == pytest.approx([shift] * 3 + [shift + share / 2] * 3)
    assert boxes[-1] == pytest.approx([11 / 12, 1 - share / 8, 1, 1])
    alone, whole = several.boxes(image, Grid(1, 4, 4))
    assert alone is image
    assert whole[-1] == pytest.approx([3 / 4, 3 / 4, 1, 1])
