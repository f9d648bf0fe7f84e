"""Evidence from inside the decoder against the model's own eager attention: what FastV, PyramidDrop and SparseVLM rank by."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from vtpbench.harness.models.family import Family
from vtpbench.harness.models.tiny import TINY
from vtpbench.pruners.base import TEXT_KINDS, Cut, Evidence, Kind, Pruner, Selection, TokenView
from vtpbench.pruners.registry import build

AT = 2
"""Layer before which the cut lies."""
NEEDS = frozenset(
    {
        Evidence("row", -1),
        Evidence("row", 0),
        Evidence("rows_mean", -1),
        Evidence("text", -1),
        Evidence("layer_keys", -1),
        Evidence("layer_keys", 0),
        Evidence("states"),
        Evidence("normed"),
        Evidence("embeddings"),
        Evidence("rotary"),
    }
)


@dataclass(frozen=True)
class Watching(Pruner):
    """Asks for everything, notes what it is shown, and keeps the first half."""

    seen: list[TokenView] = field(default_factory=list, compare=False)

    def needs(self, shape: Any) -> frozenset[Evidence]:
        return NEEDS

    def cuts(self, budget: int, n: int, shape: Any) -> tuple[Cut, ...]:
        return (Cut(AT, n // 2),)

    def reduce(self, view: TokenView) -> Selection:
        self.seen.append(view)
        return Selection(torch.arange(view.cut.keep).expand(len(view.keys), -1))


@pytest.fixture(scope="module", params=TINY)
def shown(request: pytest.FixtureRequest, tools: Any) -> tuple[Any, Any, list[tuple[TokenView, int, int]], list[Tensor]]:
    """A padded batch, what eager attention of the unpruned model is on it, each image's view, row of it and number, and the
    rotary tables that the model hands its layers."""
    pruner = Watching()
    batch = tools.prepare(TINY[request.param](), pruner, 0.5, tools.MIXED)
    tools.forward(TINY[request.param](), batch)
    eager = TINY[request.param](attention="eager")
    tables: list[tuple[Tensor, Tensor]] = []
    first = eager.decoder.layers[0]
    first.register_forward_pre_hook(lambda _, __, given: tables.append(given["position_embeddings"]), with_kwargs=True)
    whole = unpruned(eager, batch)
    number = {image.key: n for n, image in enumerate(batch.images)}
    views = [(view, row, number[key]) for view in pruner.seen for row, key in enumerate(view.keys)]
    assert sorted(n for _, _, n in views) == [0, 1, 2, 3]
    assert batch.layout.padded
    return batch, whole, views, [table.expand(len(batch.layout.rows), -1, -1) for table in tables[0]]


@torch.inference_mode()
def unpruned(eager: Family, batch: Any) -> SimpleNamespace:
    """Attention maps and cache of all layers, and what enters layer `AT`, also behind the final norm."""
    entered: list[Tensor] = []
    note = lambda _, args, given: entered.append(args[0] if args else given["hidden_states"])  # noqa: E731 - one line
    handle = eager.decoder.layers[AT].register_forward_pre_hook(note, with_kwargs=True)
    output = eager.decoder(
        inputs_embeds=batch.embeds,
        position_ids=batch.positions,
        attention_mask=batch.layout.valid(eager.device).long(),
        use_cache=True,
        output_attentions=True,
        **eager.stock_arguments(batch, batch.layout.width),
    )
    handle.remove()
    states, cache = entered[0], output.past_key_values
    return SimpleNamespace(attentions=output.attentions, states=states, normed=eager.decoder.norm(states), past_key_values=cache)


def expected(batch: Any, whole: Any, need: Evidence, image: int, tokens: slice | None = None) -> Tensor:
    """The same from attention maps, hidden states and caches of all layers; of the image's tokens unless others are named."""
    layout = batch.layout
    place = layout.places[image]
    tokens = tokens or slice(place.start, place.start + place.length)
    layer = AT + need.layer
    attention: Tensor = whole.attentions[layer][place.row]
    if need.kind == "row":
        return attention[:, -1, tokens].mean(0)
    if need.kind == "rows_mean":
        return attention[:, layout.width - layout.lengths[place.row] :, tokens].mean((0, 1))
    if need.kind == "text":
        return attention[:, layout.width - text_length(batch, image) :, tokens]
    if need.kind == "layer_keys":
        return whole.past_key_values.layers[layer].keys[place.row, :, tokens].transpose(0, 1).flatten(1)
    if need.kind == "states":
        return whole.states[place.row, tokens]
    if need.kind == "normed":
        return whole.normed[place.row, tokens]
    return batch.embeds[place.row, tokens]


def text_length(batch: Any, image: int) -> int:
    row = batch.layout.rows[batch.layout.places[image].row]
    assert row[-1].image is None
    return row[-1].length


@pytest.mark.parametrize("need", sorted(NEEDS - {Evidence("rotary")}, key=str), ids=lambda need: f"{need.kind}{need.layer:+d}")
def test_it_is_what_eager_attention_shows(need: Evidence, shown: Any) -> None:
    batch, whole, views, _ = shown
    for view, row, image in views:
        found = view.evidence[need][row]
        if need.kind == "text":
            found = found[:, view.text.real[row]]
        torch.testing.assert_close(found, expected(batch, whole, need, image), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(TEXT_KINDS - {"rotary"}))
def test_text_has_the_same_evidence(kind: Kind, shown: Any) -> None:
    batch, whole, views, _ = shown
    for need in (need for need in NEEDS if need.kind == kind):
        for view, row, image in views:
            found = view.text.get(kind, need.layer)[row][view.text.real[row]]
            last = slice(batch.layout.width - text_length(batch, image), batch.layout.width)
            torch.testing.assert_close(found, expected(batch, whole, need, image, last), rtol=0, atol=1e-5)


def test_text_is_what_follows_the_last_image(shown: Any) -> None:
    batch, _, views, rotary = shown
    for view, row, image in views:
        length, place = text_length(batch, image), batch.layout.places[image]
        real = view.text.real[row]
        assert real.sum() == length
        assert torch.equal(view.text.get("embeddings")[row][real], batch.embeds[place.row, -length:])
        cosine, sine = (table[place.row] for table in rotary)
        angles = torch.cat([cosine[:, : cosine.shape[-1] // 2], sine[:, : sine.shape[-1] // 2]], dim=-1)
        torch.testing.assert_close(view.text.get("rotary")[row][real], angles[-length:])
        shown_angles = view.evidence[Evidence("rotary")][row]
        torch.testing.assert_close(shown_angles, angles[place.start : place.start + place.length])


@pytest.mark.parametrize(("name", "options"), [("fastv", {}), ("fastv", {"rows": "all"}), ("pyramiddrop", {"positions": "keep"})])
@pytest.mark.parametrize("family", TINY)
def test_what_stays_is_what_eager_attention_ranks_highest(family: str, name: str, options: dict[str, str], tools: Any) -> None:
    pruner, model = build(name, options), TINY[family]()
    batch = tools.prepare(model, pruner, 0.5, tools.MIXED)
    _, trace = tools.forward(model, batch)
    eager = TINY[family](attention="eager")
    (at, *_) = [cut.at for cut in batch.images[0].schedule.cuts]
    kind: Kind = "rows_mean" if "rows" in options else "row"
    layer = at - AT + (0 if name == "pyramiddrop" else -1)
    whole = unpruned(eager, batch)
    for image, tokens in enumerate(batch.images):
        score = expected(batch, whole, Evidence(kind, layer), image)
        keep = tokens.schedule.cuts[0].keep
        best = score.sort(descending=True, stable=True).indices[:keep].sort().values
        assert torch.equal(trace.kept[image][at], tokens.index[best])
        assert keep < len(score)
