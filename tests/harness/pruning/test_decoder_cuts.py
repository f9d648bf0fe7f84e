"""Positions and cache lengths of every decoder layer, in the prefill and in decoding, as the layer's attention gets them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vtpbench.harness.models.family import Family
from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.pruning.cache_argument import cache_in
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.pruners.registry import build

STEPS = 4
CASES = [
    ("fastv", {}, "llava"),
    ("fastv", {}, "qwen2_5_vl"),
    ("pyramiddrop", {}, "llava"),
    ("pyramiddrop", {}, "llava_next"),
    ("pyramiddrop", {"positions": "keep"}, "llava"),
    ("pyramiddrop", {"positions": "keep"}, "qwen2_5_vl"),
    ("sparsevlm", {}, "llava"),
    ("sparsevlm", {"positions": "keep"}, "qwen2_5_vl"),
    ("sparsevlm", {"version": "2"}, "llava"),
]


class Spy:
    """Cosine tables and cache lengths that each layer's attention is handed, one entry a forward pass."""

    def __init__(self, family: Family) -> None:
        self.tables: list[list[torch.Tensor]] = []
        self.cached: list[list[int]] = []
        self.handles = []
        for number, layer in enumerate(family.decoder.layers):  # type: ignore[arg-type]  # nn.Module types its parts loosely
            hook = self._note(number)
            self.handles.append(layer.self_attn.register_forward_pre_hook(hook, with_kwargs=True))

    def _note(self, number: int) -> Any:
        def hook(module: Any, args: Any, kwargs: Any) -> None:
            if number == 0:
                self.tables.append([])
                self.cached.append([])
            self.tables[-1].append(kwargs["position_embeddings"][0].clone())
            self.cached[-1].append(cache_in(kwargs).get_seq_length(number))

        return hook

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


@pytest.mark.parametrize(("name", "options", "family"), CASES, ids=lambda case: str(case))
def test_every_layer_has_the_positions_and_the_cache_of_its_own_sequence(
    name: str, options: dict[str, str], family: str, tools: Any
) -> None:
    model, pruner = TINY[family](), build(name, options)
    batch = tools.prepare(model, pruner, 0.5, tools.MIXED[:1])
    spy = Spy(model)
    _, trace = Pipeline(model).generate(batch, STEPS)
    spy.remove()
    assert len(spy.tables) >= 3, "the answer ended before decoding could be seen"
    place, width = batch.layout.places[0], batch.layout.width
    columns = torch.arange(width)
    full = batch.positions
    for layer, count in enumerate(trace.per_layer[0]):
        before = [at for at in trace.kept[0] if at <= layer]
        at, length = max(before), width - place.length + count
        image = torch.isin(batch.images[0].index, trace.kept[0][at]).nonzero().flatten()
        left = torch.cat([columns[: place.start], place.start + image, columns[place.start + place.length :]])
        merged = name == "sparsevlm" and "version" not in options and at > 0
        if pruner.position_rule == "renumber" and at > 0:
            positions, next_one = torch.arange(length)[None], torch.tensor([[length]])
        else:
            positions, next_one = full[..., left], full[..., -1:] + 1
        assert len(left) == length
        tables = [step[layer] for step in spy.tables]
        assert tables[0].shape[1] == length
        if not (merged and pruner.position_rule == "keep"):  # there a merged row, behind the others, has its centre's position
            assert torch.allclose(tables[0], rotary(model, positions))
        for step, table in enumerate(tables[1:]):
            assert torch.allclose(table, rotary(model, next_one + step))
        assert [step[layer] for step in spy.cached] == [0, *range(length, length + len(tables) - 1)]
    lengths = set(spy.cached[1])
    assert len(lengths) == len(trace.kept[0]), "each cut leaves shorter caches behind"


def rotary(model: Family, positions: torch.Tensor) -> torch.Tensor:
    table: torch.Tensor = model.decoder.rotary_emb(torch.zeros(1), position_ids=positions)[0]  # type: ignore[operator]  # as above
    return table


@pytest.mark.parametrize(("positions", "cuts"), [("reference", 3), ("keep", 0)])
def test_a_decoding_step_makes_the_tables_behind_a_cut_once(positions: str, cuts: int, tools: Any) -> None:
    """Not once for each layer: on a GPU that is a launch of several kernels more, for every token."""
    model, pruner, steps = TINY["llava"](), build("pyramiddrop", {"positions": positions}), []
    batch = tools.prepare(model, pruner, 0.5, tools.MIXED)
    first = model.decoder.register_forward_pre_hook(lambda module, args: steps.append(0))
    made = model.decoder.rotary_emb.register_forward_hook(lambda module, args, output: steps.append(steps.pop() + 1))
    Pipeline(model).generate(batch, STEPS)
    first.remove()
    made.remove()
    assert len(steps) >= 3
    assert steps == [1 + cuts] * len(steps)
