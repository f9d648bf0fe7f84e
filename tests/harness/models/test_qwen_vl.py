"""What holds for every Qwen-VL family: features and evidence are the tower's own, positions those of the full prompt."""

import importlib

import pytest
import torch
from pruner_options import QWEN
from torch import Tensor

from vtpbench.harness.models.qwen_vl import QwenVL
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.pruning.schedule import collecting
from vtpbench.pruners.base import Evidence, Grid
from vtpbench.pruners.errors import Unsupported
from vtpbench.pruners.registry import build


@pytest.fixture(scope="module", params=QWEN)
def family(tiny, request) -> QwenVL:
    return tiny(request.param)


def raster(family: QwenVL) -> Tensor:
    """Where each token of a picture of 4 x 5 stands between the blocks."""
    return family.unit_order(Grid(1, 4, 5)).argsort()


def test_features_are_those_of_the_merger_in_raster_order(family, tools) -> None:
    images = [tools.picture(40, 30), tools.picture(20, 48, 1), tools.picture(40, 30, 2)]
    groups = Pipeline(family, collecting(Evidence("projected"))).encode(images)
    assert [g.members for g in groups] == [(0, 2), (1,)]
    inputs = family.image_processor(images, return_tensors="pt")
    with torch.inference_mode():
        expected = family.model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"]).pooler_output
    for group in groups:
        for n, member in enumerate(group.members):
            torch.testing.assert_close(group.features[n, :, :32], expected[member], rtol=0, atol=1e-5)
        assert torch.equal(group.evidence[Evidence("projected")], group.features[..., :32])


def test_evidence_is_what_the_blocks_compute(family, tools, monkeypatch) -> None:
    """Against the model's own eager attention, whose weights its block throws away."""
    kind = family.shape.family
    source = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
    images, seen = [tools.picture(40, 30), tools.picture(40, 30, 3)], {}
    needs = Evidence("received", -1), Evidence("received", 1), Evidence("keys", -1), Evidence("keys_all_heads", -1)
    (found,) = Pipeline(family, collecting(*needs)).encode(images)
    eager = source.eager_attention_forward

    def spy(module, query, key, *rest, **kwargs):
        output, weights = eager(module, query, key, *rest, **kwargs)
        if module in spied:
            seen.setdefault(spied[module], []).append((weights[0].mean((0, 1)), key[0]))
        return output, weights

    visual = family.model.model.visual
    spied = {block.attn: n for n, block in enumerate(visual.blocks)}
    monkeypatch.setattr(source, "eager_attention_forward", spy)
    visual.set_attn_implementation("eager")
    Pipeline(family).encode(images)
    visual.set_attn_implementation("sdpa")
    order = raster(family)
    for n in range(2):
        for layer in (1, 3):
            expected = seen[layer][n][0].unflatten(0, (20, 4)).mean(1)[order]
            need = Evidence("received", 1 if layer == 1 else -1)
            torch.testing.assert_close(found.evidence[need][n], expected, rtol=0, atol=1e-6)
        keys = seen[3][n][1].unflatten(1, (20, 4)).mean(2)[:, order]
        torch.testing.assert_close(found.evidence[Evidence("keys", -1)][n], keys.mean(0), rtol=0, atol=1e-5)
        whole = keys.transpose(0, 1).flatten(1)
        torch.testing.assert_close(found.evidence[Evidence("keys_all_heads", -1)][n], whole, rtol=0, atol=1e-5)


def test_positions_are_those_of_the_full_prompt_gathered(family, tools) -> None:
    asked = [tools.MIXED[2], tools.MIXED[1], tools.MIXED[0]]
    full = tools.prepare(family, build("vanilla", {}), None, asked)
    sizes = family.image_processor([i for _, own in asked for i in own], return_tensors="pt")["image_grid_thw"]
    kinds = torch.zeros(3, full.layout.width, dtype=torch.int32)
    for place in full.layout.places.values():
        kinds[place.row, place.start : place.start + place.length] = 1
    valid = full.layout.valid(family.device)
    expected, _ = family.model.model.get_rope_index(kinds.long(), kinds, image_grid_thw=sizes, attention_mask=valid.long())
    assert torch.equal(full.positions, expected)
    batch = tools.prepare(family, build("random", {}), 0.5, asked)
    for row in range(3):
        columns = torch.ones(full.layout.width, dtype=torch.bool)
        for image, place in full.layout.places.items():
            if place.row == row:
                columns[place.start : place.start + place.length] = False
                columns[place.start + batch.images[image].index] = True
        columns &= valid[row]
        kept = batch.positions[:, row, batch.layout.width - batch.layout.lengths[row] :]
        assert torch.equal(kept, expected[:, row, columns])


def test_decoding_goes_on_from_the_full_prompt(family, tools) -> None:
    pruner = build("fastv", {})
    batch = tools.prepare(family, pruner, 0.5, tools.MIXED)
    seen = []
    hook = family.decoder.rotary_emb.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs.get("position_ids", args[-1])), with_kwargs=True
    )
    Pipeline(family).generate(batch, 4)
    hook.remove()
    for step, positions in enumerate(seen[1:], 1):
        assert torch.equal(positions[..., 0], batch.positions[..., -1] + step)


def test_images_without_tokens_take_their_wrappers_with_them(family, tools) -> None:
    batch = tools.prepare(family, build("text-only", {}), 0.5, tools.MIXED[:1])
    plain = tools.prepare(family, build("vanilla", {}), None, [("What is it?", [])])
    assert torch.equal(batch.embeds, plain.embeds)
    assert torch.equal(batch.positions, plain.positions)
    assert "<|vision_start|>" in family.render("What is it?", 1)


def test_downsampling_makes_the_processor_the_identity(family, tools) -> None:
    image = tools.picture(40, 30)
    (found,) = Pipeline(family, build("downsample", {}), lambda n: 8).encode([image])
    assert (found.grid.height, found.grid.width, found.original) == (2, 4, 20)
    (expected,) = Pipeline(family).encode([image.resize((32, 16), 3)])
    assert torch.equal(found.features, expected.features)


def test_a_tower_without_cls_says_so_and_lets_no_token_leave(family, tools) -> None:
    for kind in ("cls", "cls_one_head"):
        with pytest.raises(Unsupported, match=f"the vision tower of {family.title} has no CLS token"):
            Pipeline(family, collecting(Evidence(kind, 3))).encode([tools.picture(40, 30)])
    with pytest.raises(Unsupported, match=rf"inside the vision tower of {family.title}, .*; set stage: post"):
        Pipeline(family, build("tome", {}), lambda n: 6).encode([tools.picture(40, 30)])
