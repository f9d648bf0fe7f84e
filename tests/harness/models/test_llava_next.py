import random
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import LlavaNextProcessor

from vtpbench.harness.models.anyres import NEWLINE
from vtpbench.harness.models.llava_next import LlavaNext
from vtpbench.harness.models.native_grid import native_grid
from vtpbench.harness.pruning.encoder_hooks import EncoderPlan
from vtpbench.harness.pruning.pipeline import Pipeline, Prompt
from vtpbench.harness.pruning.schedule import collecting
from vtpbench.pruners.base import Evidence, Grid, Pruner, TokenView
from vtpbench.pruners.errors import Unsupported
from vtpbench.pruners.registry import build

SHAPES = [(40, 30), (30, 40), (32, 32), (90, 20), (15, 61)]


@pytest.fixture(scope="module")
def fixed(tiny) -> LlavaNext:
    return tiny("llava_next")


@pytest.fixture(scope="module")
def native(tiny) -> LlavaNext:
    return tiny("llava_next", preprocessing="native")


def test_shape_says_how_many_tokens_only_where_that_is_fixed(fixed) -> None:
    assert LlavaNext.describe(fixed.model.config, "fixed672")[1] == 80
    assert LlavaNext.describe(fixed.model.config, "native")[1] is None


def test_evidence_of_an_image_is_that_of_its_tiles(fixed, tools) -> None:
    needs = frozenset({Evidence("received", 2), Evidence("hidden", 1), Evidence("keys", 2)})
    (found,) = Pipeline(fixed, collecting(*needs)).encode([tools.picture(40, 30), tools.picture(30, 40, 1)])
    plan = EncoderPlan(found.schedule, Grid(1, 4, 4))
    tiles = fixed._run_tower(fixed.group([tools.picture(30, 40, 1)])[0].pixels, plan, off_size=False)
    assert found.cls.shape == (2, 5, 32)
    for tile in range(5):
        part = slice(16 * tile, 16 * (tile + 1))
        torch.testing.assert_close(found.features[1, part], tiles.features[tile], rtol=0, atol=1e-5)
        for need in needs:
            torch.testing.assert_close(found.evidence[need][1, part], tiles.evidence[need][tile], rtol=0, atol=1e-5)


def test_kept_tokens_enter_base_first_then_by_rows_of_the_picture(fixed, tools) -> None:
    batch = tools.prepare(fixed, build("random", {}), 0.5, tools.MIXED)
    assert len(batch.images) == 4
    for image in batch.images:
        places = image.grid.place[image.index].tolist()
        assert places == sorted(places)
        assert len(set(places)) == 40
        (found,) = Pipeline(fixed).encode([tools.MIXED[0][1][0]])
    torch.testing.assert_close(batch.images[0].features, found.features[0, batch.images[0].index], rtol=0, atol=1e-5)


def test_visionzip_puts_dominant_patches_by_rows_and_cls_before_contextual_tokens(fixed, tools) -> None:
    batch = tools.prepare(fixed, build("visionzip", {"contextual": 2}), 0.5, tools.MIXED[:1])
    index = batch.images[0].index
    assert index[0] == -1  # CLS of the base tile, its 5 dominant and 2 contextual, 20 dominant of the others, their CLS
    assert (index[28:32] == -1).all()
    for part in (index[1:6], index[8:28]):
        places = batch.images[0].grid.place[part].tolist()
        assert places == sorted(places)
    assert index[8:28].tolist() != sorted(index[8:28].tolist())


def test_visionzip_leaves_contextual_tokens_tile_by_tile_where_asked(fixed, tools) -> None:
    """Packed by hand: of each tile its CLS, its dominant and its contextual tokens, as the choice of one tile gives them."""
    (ours,) = tools.prepare(fixed, build("visionzip", {"contextual": 3}), 0.5, tools.MIXED[:1]).images
    (theirs,) = tools.prepare(fixed, build("visionzip", {"contextual": 3, "order": "reference"}), 0.5, tools.MIXED[:1]).images
    assert torch.equal(theirs.features[:28], ours.features[:28]), "the base tile, then dominant tokens and CLS as they were"
    assert (theirs.index[28:] == -1).all()
    places = ours.grid.place[ours.index[28:]]
    assert places.tolist() == sorted(places.tolist())
    by_tile = ours.index[28:].argsort()  # tokens are numbered tile after tile
    assert by_tile.tolist() != list(range(12))
    assert torch.equal(theirs.features[28:], ours.features[28:][by_tile])


@pytest.mark.parametrize("shape", SHAPES)
def test_native_is_the_stock_model_bit_by_bit(shape, native, tools) -> None:
    image = tools.picture(*shape)
    grid = native_grid(native.model.config, (image.height, image.width))
    ids = []
    for token in native.tokenizer(native.render("What is it?", 1))["input_ids"]:
        ids += [token] * (len(grid.lines) if token == native.image_id else 1)
    inputs = {"input_ids": torch.tensor([ids]), **native.image_processor(image, return_tensors="pt")}
    with torch.inference_mode():
        expected = native.model(**inputs, attention_mask=torch.ones(1, len(ids), dtype=torch.int64)).logits
    for pruner, budget in (("vanilla", None), ("random", 1.0), ("divprune", 1.0)):
        batch = SimpleNamespace(made=whole(native, pruner, budget, image))
        logits, trace = tools.forward(native, batch.made)
        assert trace.per_layer[0] == [len(grid.lines)] * 6
        assert torch.equal(logits, expected)


def whole(family, pruner, budget, image):
    pipeline = Pipeline(family, build(pruner, {}), lambda n: None if budget is None else n)
    return pipeline.assemble(["What is it?"], [[pipeline.select(pipeline.encode([image]), ["key"])[0]]])


def extreme_shapes() -> list[tuple[int, int]]:
    """Shapes from 1:200 to 200:1, of few pixels and of many."""
    drawn = random.Random(0)
    shapes = [(1, 1), (1, 200), (200, 1), (3, 600), (600, 3), (2, 90), (90, 2), (13, 336), (14, 336), (15, 336), (3, 3)]
    for _ in range(60):
        short, ratio = drawn.randint(1, 12), drawn.uniform(1, 200)
        shapes += [(short, round(short * ratio)), (round(short * ratio), short)]
    return shapes


def test_native_lays_out_every_shape_as_transformers_packs_it(native) -> None:
    for shape in extreme_shapes():
        picture = Image.new("RGB", shape)
        inputs = native.image_processor([picture], return_tensors="pt")
        tiles = inputs["pixel_values"].shape[1]
        numbered = [torch.arange(16.0 * tiles).reshape(tiles, 16, 1)]
        newline = torch.tensor([float(NEWLINE)])
        (packed,), _ = native.model.model.pack_image_features(numbered, inputs["image_sizes"], "default", newline)
        grid = native_grid(native.model.config, (picture.height, picture.width))
        assert grid.lines.tolist() == packed.flatten().tolist(), shape
        assert grid.lines[grid.filled(torch.arange(grid.n), grid.n * 2)].tolist() == packed.flatten().tolist(), shape


@pytest.mark.parametrize("shape", [(2, 90), (1, 190), (190, 1), (90, 2), (3, 600)])
def test_native_answers_about_very_long_pictures_as_transformers_does(shape, native, tools) -> None:
    picture = tools.picture(*shape)
    processor = LlavaNextProcessor(
        native.image_processor,
        native.tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    inputs = processor(text=[native.render("What?", 1)], images=[picture], return_tensors="pt")
    with torch.inference_mode():
        said = native.model.generate(**inputs, max_new_tokens=8, do_sample=False, pad_token_id=3)
    result = Pipeline(native).run([Prompt("key", "What?", [picture])], 8)
    assert result.texts == native.tokenizer.batch_decode(said[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert result.trace.per_layer[0] == [int((inputs["input_ids"] == native.image_id).sum())] * 6


MET = [(pruner, share) for pruner in ("random", "divprune") for share in (0.2, 0.4, 0.5, 0.8, 0.95, 1.0)]


@pytest.mark.parametrize(("pruner", "share"), [*MET, ("fastv", 0.5), ("fastv", 0.8)])
def test_native_meets_any_budget_of_a_picture_whose_rows_are_empty(pruner, share, native, tools) -> None:
    pipeline = Pipeline(native, build(pruner, {}), lambda n: round(share * n))
    result = pipeline.run([Prompt("key", "What?", [tools.picture(2, 90)])], 1)
    assert result.images[0][0].original == 16 + 12
    assert sum(result.trace.per_layer[0]) / 6 == pytest.approx(round(share * 28), abs=1)


@pytest.mark.parametrize("pruner", ["random", "divprune", "fastv", "pyramiddrop", "holov", "hired"])
def test_native_counts_newlines_in_the_budget(pruner, native, tools) -> None:
    chosen = build(pruner, {})
    for shape in SHAPES:
        pipeline = Pipeline(native, chosen, lambda n: n // 2)
        encoded = pipeline.encode([tools.picture(*shape)])
        budget = encoded[0].original // 2
        batch = pipeline.assemble(["What?"], [[pipeline.select(encoded, ["key"])[0]]])
        _, trace = tools.forward(native, batch)
        assert sum(trace.per_layer[0]) / 6 == pytest.approx(budget, abs=1)
        assert sum(trace.per_layer[0]) / 6 <= budget + 0.5


@dataclass(frozen=True)
class Asked(Pruner):
    """Notes which question is shown with which image."""

    reads_question = True
    seen: set[tuple[str, str]] = field(default_factory=set, compare=False)

    def score(self, view: TokenView) -> torch.Tensor:
        self.seen.update(zip(view.keys, view.questions, strict=True))
        return view.features[..., 0]


@pytest.mark.parametrize("preprocessing", LlavaNext.preprocessings)
def test_each_image_is_shown_with_its_own_question(preprocessing, tiny, tools) -> None:
    family, pruner = tiny("llava_next", preprocessing=preprocessing), Asked()
    pipeline = Pipeline(family, pruner, lambda n: 20)
    encoded = pipeline.encode([tools.picture(40, 30), tools.picture(40, 30, 1)])
    pipeline.select(encoded, ["a", "b"], ["What is A?", "What is B?"])
    assert pruner.seen == {("a", "What is A?"), ("b", "What is B?")}


def test_native_newlines_follow_the_rows_that_are_left(native, tools) -> None:
    pipeline = Pipeline(native, build("random", {}), lambda n: 14)
    image = pipeline.select(pipeline.encode([tools.picture(90, 20)]), ["key"])[0]
    batch = pipeline.assemble(["What?"], [[image]])
    start, grid = batch.layout.places[0].start, image.grid
    newline = native.model.model.image_newline
    for n, index in enumerate(image.index.tolist()):
        assert torch.equal(batch.embeds[0, start + n], newline) == (index == NEWLINE)
        assert index == NEWLINE or grid.place[index] >= 0
    rows = [int(grid.place[i] - 16) // 13 for i in image.index.tolist() if i >= 16]
    assert (image.index == NEWLINE).sum() == len(set(rows))


def test_native_batch_is_as_alone(native, tools) -> None:
    for pruner in ("vanilla", "random", "fastv", "text-only"):
        chosen, budget = build(pruner, {}), None if pruner == "vanilla" else 0.5
        together = tools.prepare(native, chosen, budget, tools.MIXED)
        logits, _ = tools.forward(native, together)
        for row, asked in enumerate(tools.MIXED):
            expected, _ = tools.forward(native, tools.prepare(native, chosen, budget, [asked]))
            torch.testing.assert_close(logits[row, -1], expected[0, -1], rtol=1e-5, atol=1e-5)  # threads add in another order


@pytest.mark.parametrize("pruner", ["visionzip", "hiprune", "grid", "pool", "downsample"])
def test_native_refuses_what_cannot_be_counted(pruner, native, tools) -> None:
    with pytest.raises(Unsupported, match="fixed672"):
        tools.prepare(native, build(pruner, {}), 0.5, tools.MIXED[:1])


def test_downsampling_shrinks_every_tile(fixed, tools) -> None:
    batch = tools.prepare(fixed, build("downsample", {}), 0.5, tools.MIXED[:1])
    assert batch.images[0].original == 80
    assert batch.images[0].grid.tiles == 5
    assert len(batch.images[0].index) == 40
