"""No pruner waits for a GPU or mixes it with the host, at the token counts of real models: on one that is only pretended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
import torch
from pretended_gpu import GPU, Wait, pretended_gpu
from pruner_options import OPTIONS, UNSUPPORTED, options_for
from torch import Tensor

from vtpbench.pruners.base import (
    ATTENTION_KINDS,
    DECODER_KINDS,
    TEXT_KINDS,
    Cut,
    Evidence,
    Grid,
    ModelShape,
    Pruner,
    Selection,
    TextTowerSource,
    TextView,
    TokenView,
)
from vtpbench.pruners.errors import Unsupported
from vtpbench.pruners.registry import build, entries

WIDTH = 32
TOWER = TextTowerSource("some/clip", "abc")
CLIP = {
    "text_tower": TOWER,
    "vision_layers": 24,
    "vision_width": WIDTH,
    "feature_layer": 22,
    "has_cls": True,
    "full_attention": tuple(range(24)),
}
QWEN = {"vision_layers": 32, "vision_width": WIDTH, "feature_layer": 31, "has_cls": False, "full_attention": (7, 15, 23, 31)}
SHAPES = {
    "llava": (ModelShape("llava", 32, 32, WIDTH, **CLIP), Grid(1, 24, 24)),
    "llava_next": (ModelShape("llava_next", 32, 32, WIDTH, **CLIP, tiles=5), Grid(5, 24, 24)),
    "qwen2_vl": (
        ModelShape("qwen2_vl", 28, 28, WIDTH, multi_axis_positions=True, **{**QWEN, "full_attention": tuple(range(32))}),
        Grid(1, 20, 30),
    ),
    "qwen3_vl": (
        ModelShape("qwen3_vl", 28, 28, WIDTH, multi_axis_positions=True, **{**QWEN, "full_attention": tuple(range(32))}),
        Grid(1, 20, 30),
    ),
    "internvl": (
        ModelShape("internvl", 28, 28, WIDTH, **{**CLIP, "text_tower": None, "feature_layer": 23, "has_cls": False}, tiles=7),
        Grid(7, 16, 16, across=3),
    ),
    "qwen2_5_vl": (ModelShape("qwen2_5_vl", 28, 28, WIDTH, multi_axis_positions=True, **QWEN), Grid(1, 20, 30)),
}
IMAGES, TEXT, HEAD = 2, 20, 8


def visits(pruner: Pruner, model: str) -> Iterator[tuple[Selection, TokenView]]:
    """Run all cuts of a pruner at a fifth of a model's tokens, each on what the one before has left."""
    shape, grid = SHAPES[model]
    budget = grid.n // grid.tiles // 5
    inside, n = pruner.tower_cuts(budget, grid.n // grid.tiles, shape), grid.n // grid.tiles
    rows, lying, size = IMAGES * grid.tiles, Grid(1, grid.height, grid.width), None
    for stage, cut in enumerate(inside):
        at = cut.at % shape.vision_layers
        due = {need for need in pruner.needs(shape) if need.kind in ATTENTION_KINDS and need.layer % shape.vision_layers == at}
        seen = view(cut, stage, due, shape, lying, (rows, n), size=size)
        keep = pruner.apply(seen)
        yield keep, seen
        n, size = keep.k, keep.size
    n *= grid.tiles
    for stage, cut in enumerate(pruner.cuts(budget * grid.tiles, grid.n, shape)):
        due = {need for need in pruner.needs(shape) if (need.kind in DECODER_KINDS) == (cut.at > 0)}
        seen = view(cut, stage, due, shape, grid, (IMAGES, n))
        keep = pruner.apply(seen)
        yield keep, seen
        n = keep.k


def view(
    cut: Cut, stage: int, due: set[Evidence], shape: ModelShape, grid: Grid, size_of: tuple[int, int], **more: Any
) -> TokenView:
    """What a pruner would see, on the GPU."""
    images, n = size_of
    late = cut.at > 0
    width = shape.decoder_width if late else shape.vision_width
    kinds = {
        "hidden": (n, shape.vision_width),
        "received": (n,),
        "cls": (n,),
        "keys": (n, 8),
        "cls_one_head": (n,),
        "keys_all_heads": (n, 16),
        "projected": (n, shape.decoder_width),
        "joint": (n, 16),
        "row": (n,),
        "rows_mean": (n,),
        "text": (shape.decoder_heads, TEXT, n),
        "layer_keys": (n, 16),
        "states": (n, shape.decoder_width),
        "normed": (n, shape.decoder_width),
        "embeddings": (grid.n, shape.decoder_width),
        "rotary": (n, HEAD),
    }

    def drawn(*sizes: int) -> Tensor:
        return torch.randn(images, *sizes, device=GPU)

    words = {need: drawn(TEXT, *kinds[need.kind][1:]) for need in due if need.kind in TEXT_KINDS}
    return TokenView(
        cut=cut,
        stage=stage,
        features=drawn(n, width),
        index=torch.arange(n, device=GPU).expand(images, -1),
        grid=grid,
        shape=shape,
        keys=() if cut.at < 0 else tuple(map(str, range(images))),
        evidence={need: drawn(*kinds[need.kind]) for need in due},
        cls=drawn(grid.tiles, width) if shape.has_cls and not late else None,
        text=TextView(torch.ones(images, TEXT, dtype=torch.bool, device=GPU), words) if late else None,
        asked=drawn(16) if any(need.kind == "joint" for need in due) else None,
        questions=("Why?",) * images if cut.at == 0 else (),
        **more,
    )


@torch.inference_mode()
def waits(pruner: Pruner, model: str) -> list[Wait]:
    """Waits of the second run: what is made once for each geometry, and then kept, may be brought over at leisure."""
    with pretended_gpu() as gpu:
        for _ in range(2):
            torch.manual_seed(0)
            gpu.waits.clear()
            for keep, _seen in visits(pruner, model):
                parts = [getattr(keep, part.name) for part in fields(keep)]
                assert {part.device for part in parts if isinstance(part, Tensor)} == {GPU}
    return gpu.waits


@pytest.mark.parametrize("name", sorted(name for name, entry in entries().items() if entry.distribution == "vtpbench"))
@pytest.mark.parametrize("model", SHAPES)
def test_a_pruner_stays_on_the_device_and_never_waits_for_it(model: str, name: str) -> None:
    pruner = build(name, options_for(name, model))
    if (name, model) in UNSUPPORTED:
        with pytest.raises(Unsupported):
            pruner.needs(SHAPES[model][0])
    else:
        assert waits(pruner, model) == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fastv", {"rows": "all"}),
        ("hiprune", {"compat": True}),
        ("holov", {"scaling": "image"}),
        ("hiprune", {"neighbours": "grid", "alpha": 0.5}),
        ("oc-vtp", {**OPTIONS["oc-vtp"], "pad": "none"}),
        ("oc-vtp", {**OPTIONS["oc-vtp"], "pad": "random"}),
        ("oc-vtp", {**OPTIONS["oc-vtp"], "seed": None, "top_k": 2, "attention": "cls"}),
        ("prumerge", {"count": "outliers", "order": "reference"}),
        ("prumerge-plus", {"count": "outliers"}),
        ("pyramiddrop", {"positions": "keep"}),
        ("sparsevlm", {"positions": "keep"}),
        ("sparsevlm", {"version": "2", "clamp": None, "heads": 3}),
        ("trim", {"count": "outliers", "similarity": "cosine"}),
        ("visionzip", {"contextual": 0}),
        ("vscan", {"merge": False}),
    ],
)
def test_nor_does_it_with_other_options(name: str, options: dict[str, object]) -> None:
    assert waits(build(name, options), "llava") == []
