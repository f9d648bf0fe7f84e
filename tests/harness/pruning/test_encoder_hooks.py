import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import torch
from pruner_options import BEHIND
from torch import Tensor
from torch.nn.functional import cosine_similarity

from vtpbench.harness.check import check, render
from vtpbench.harness.models.llava import Llava
from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.pruning.schedule import collecting
from vtpbench.pruners.base import Cut, Evidence, Pruner, Selection, TokenView, rank, take
from vtpbench.pruners.errors import Infeasible, Unsupported, UserError
from vtpbench.pruners.registry import build

DOCS = Path(__file__).parents[3] / "docs" / "pruners.md"


@pytest.fixture(scope="module")
def family(tiny) -> Llava:
    return tiny("llava")


@dataclass(frozen=True)
class Dropping(Pruner):
    """Drops the tokens that CLS looks at least, behind the attention of layers 0 and 2 of 4; asks for whatever else."""

    also: frozenset[Evidence] = frozenset()

    def needs(self, shape):
        return frozenset({Evidence("cls", 0), Evidence("cls", 2)}) | self.also

    def tower_cuts(self, budget, n, shape):
        return (Cut(-4, n - 5), Cut(-2, budget))

    def reduce(self, view):
        if view.cut.at == 0:
            return Selection(torch.arange(view.n).expand(len(view.keys), -1))
        attention = view.evidence[Evidence("cls", view.cut.at + 4)]
        return Selection(rank(attention)[:, : view.cut.keep].sort(dim=1).values)


class Oracle:
    """A CLIP tower in plain steps over one picture; `act` gets what each layer's attention gave, and what it gave it with."""

    def __init__(self, family: Llava, act) -> None:
        self.tower, self.act = family.model.model.vision_tower, act

    @torch.inference_mode()
    def run(self, pixels: Tensor, layers: int) -> Tensor:
        hidden = self.tower.pre_layrnorm(self.tower.embeddings(pixels))[0]
        sizes = torch.ones(len(hidden))
        for number, layer in enumerate(self.tower.encoder.layers[:layers]):
            attention = layer.self_attn
            maps = (attention.q_proj, attention.k_proj, attention.v_proj)
            normed = layer.layer_norm1(hidden)
            query, key, value = (m(normed).unflatten(-1, (attention.num_heads, -1)).transpose(0, 1) for m in maps)
            weights = (query @ key.mT * attention.head_dim**-0.5 + sizes.log()).softmax(-1)
            hidden = hidden + attention.out_proj((weights @ value).transpose(0, 1).flatten(1))
            hidden, sizes = self.act(number, hidden, sizes, key.mean(0), weights.mean(0))
            hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
        return hidden


def drop(counts: dict[int, int]):
    def act(number, hidden, sizes, keys, weights):
        if number not in counts:
            return hidden, sizes
        seen = weights[0, 1:]
        kept = sorted(sorted(range(len(seen)), key=lambda n: -seen[n])[: counts[number]])
        return hidden[[0, *(1 + n for n in kept)]], sizes[[0, *(1 + n for n in kept)]]

    return act


def merge(counts: list[int]):
    """Token merging with loops, over all tokens, CLS among the candidates but never taken."""

    def act(number, hidden, sizes, keys, weights):
        rows = list(range(len(hidden)))
        candidates, others = rows[2::2], rows[1::2]
        likeness = {a: [float(cosine_similarity(keys[a], keys[b], dim=0)) for b in others] for a in candidates}
        best = sorted(candidates, key=lambda a: -max(likeness[a]))[: len(hidden) - 1 - counts[number]]
        stay = [a for a in candidates if a not in best]
        members = {b: [b] for b in others}
        for a in best:
            members[others[likeness[a].index(max(likeness[a]))]].append(a)
        groups = [[0], *([a] for a in stay), *members.values()]
        merged = [sum(hidden[m] * sizes[m] for m in group) / sum(sizes[m] for m in group) for group in groups]
        return torch.stack(merged), torch.stack([sizes[group].sum() for group in groups])

    return act


def unordered(rows: Tensor) -> Tensor:
    """Sort rows by a projection: merging leaves them in an order of its own."""
    return rows[(rows @ torch.linspace(-1, 1, rows.shape[1])).argsort()]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_dropping_inside_the_tower_is_what_plain_steps_give(tiny, tools, attention: str) -> None:
    family, images = tiny("llava", attention=attention), [tools.picture(40, 30), tools.picture(30, 40, 1)]
    (found,) = Pipeline(family, Dropping(), lambda n: 6).encode(images)
    assert found.tower == (11, 11, 6, 6)
    for n, image in enumerate(images):
        expected = Oracle(family, drop({0: 11, 2: 6})).run(family.group([image])[0].pixels, 3)
        torch.testing.assert_close(found.features[n], expected[1:], rtol=0, atol=1e-5)
        torch.testing.assert_close(found.cls[n], expected[:1], rtol=0, atol=1e-5)
        assert found.index[n].tolist() == sorted(set(found.index[n].tolist()))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_merging_inside_the_tower_is_what_plain_steps_give(tiny, tools, attention: str) -> None:
    """With weights by size in the mean and in the attention of later layers."""
    family, image = tiny("llava", attention=attention), tools.picture(40, 30)
    (found,) = Pipeline(family, build("tome", {}), lambda n: 6).encode([image])
    assert found.tower == (12, 9, 6, 6)
    expected = Oracle(family, merge([12, 9, 6])).run(family.group([image])[0].pixels, 3)
    torch.testing.assert_close(unordered(found.features[0]), unordered(expected[1:]), rtol=0, atol=1e-5)


def test_rows_come_in_the_order_of_the_image(family, tools) -> None:
    for order, ordered in (("raster", True), ("reference", False)):
        batch = tools.prepare(family, build("tome", {"order": order}), 0.5, tools.MIXED)
        assert all(len(image.index) == 8 for image in batch.images)
        assert all((image.index.tolist() == sorted(image.index.tolist())) == ordered for image in batch.images)


def test_every_tile_gets_its_share(tiny, tools) -> None:
    family = tiny("llava_next")
    image = tools.picture(40, 30)
    (found,) = Pipeline(family, build("tome", {}), lambda n: 30).encode([image])
    assert found.index.shape == (1, 30)
    assert [int(n) // 16 for n in found.index[0]] == sorted([0, 1, 2, 3, 4] * 6)
    pixels = family.group([image])[0].pixels
    expected = Oracle(family, merge([12, 9, 6])).run(pixels[3:4], 3)
    torch.testing.assert_close(unordered(found.features[0, 18:24]), unordered(expected[1:]), rtol=0, atol=1e-5)
    with pytest.raises(Infeasible, match="31 cannot be shared equally by 5 tiles"):
        Pipeline(family, build("tome", {}), lambda n: 31).encode([image])
    with pytest.raises(Unsupported, match="under preprocessing 'native'"):
        Pipeline(tiny("llava_next", preprocessing="native"), build("tome", {}), lambda n: 30).encode([image])


def test_evidence_is_of_what_is_left(family, tools) -> None:
    """Of layers behind the last cut; attention of those with one is for the cut, earlier layers had other tokens."""
    later = frozenset({Evidence("hidden", 2), Evidence("cls", 3), Evidence("projected")})
    (found,) = Pipeline(family, Dropping(later), lambda n: 6).encode([tools.picture(40, 30)])
    assert found.evidence.keys() == later
    assert torch.equal(found.evidence[Evidence("hidden", 2)], found.features)
    assert found.evidence[Evidence("cls", 3)].shape == (1, 6)
    assert found.evidence[Evidence("projected")].shape[:2] == (1, 6)
    for early in (Evidence("hidden", 1), Evidence("keys", 1)):
        with pytest.raises(Unsupported, match=f"{early.kind} of vision layer 1, after which tokens leave the tower"):
            Pipeline(family, Dropping(frozenset({early})), lambda n: 6).encode([tools.picture(40, 30)])


def test_attention_of_weighted_rows_is_that_of_the_tower(tiny, tools) -> None:
    @dataclass(frozen=True)
    class Weighing(Pruner):
        def needs(self, shape):
            return frozenset({Evidence("received", 3)})

        def tower_cuts(self, budget, n, shape):
            return (Cut(-4, n),)

        def reduce(self, view):
            size = torch.arange(1.0, view.n + 1).expand(len(view.features), -1)
            return Selection(view.index, view.features, size=size)

    family, image = tiny("llava", attention="eager"), tools.picture(40, 30)
    weights = []
    handle = family.model.model.vision_tower.encoder.layers[3].self_attn.register_forward_hook(
        lambda module, args, output: weights.append(output[1])
    )
    (found,) = Pipeline(family, Weighing(), lambda n: n).encode([image])
    (plain,) = Pipeline(family, collecting(Evidence("received", 3))).encode([image])
    handle.remove()
    received = weights[0].mean((1, 2))[:, 1:]
    torch.testing.assert_close(found.evidence[Evidence("received", 3)], received, rtol=0, atol=1e-6)
    assert not torch.allclose(received, plain.evidence[Evidence("received", 3)], atol=1e-3)


def test_a_row_of_two_is_attended_as_two_equal_rows(family, tools) -> None:
    """What proportional attention means: repeating tokens and weighing them twice give the same."""

    @dataclass(frozen=True)
    class Repeating(Pruner):
        twice: bool

        def tower_cuts(self, budget, n, shape):
            return (Cut(-4, 8 * (1 + self.twice)),)

        def reduce(self, view):
            chosen = torch.arange(8).repeat(1 + self.twice).expand(len(view.features), -1)
            size = None if self.twice else torch.full(chosen.shape, 2.0)
            return Selection(chosen, take(view.features, chosen), size=size)

    image = tools.picture(40, 30)
    (weighed,) = Pipeline(family, Repeating(twice=False), lambda n: 8).encode([image])
    (repeated,) = Pipeline(family, Repeating(twice=True), lambda n: 16).encode([image])
    torch.testing.assert_close(weighed.features, repeated.features[:, :8], rtol=0, atol=1e-5)
    torch.testing.assert_close(weighed.cls, repeated.cls, rtol=0, atol=1e-5)


def test_flash_attention_cannot_weigh(family, tools, monkeypatch) -> None:
    config = family.model.model.vision_tower.encoder.layers[0].self_attn.config

    @dataclass(frozen=True)
    class Weighing(Pruner):
        def tower_cuts(self, budget, n, shape):
            return (Cut(-4, n),)

        def reduce(self, view):
            monkeypatch.setattr(config, "_attn_implementation_internal", "flash_attention_2")  # from the next layer on
            return Selection(view.index, view.features, size=torch.ones_like(view.features[..., 0]))

    with pytest.raises(Unsupported, match="use attention: sdpa"):
        Pipeline(family, Weighing(), lambda n: 8).encode([tools.picture(40, 30)])


@dataclass(frozen=True)
class Wrong(Dropping):
    """Breaks one rule of choosing inside the tower."""

    way: str = ""

    def reduce(self, view: TokenView) -> Selection:
        keep = super().reduce(view)
        if self.way == "count":
            return Selection(keep.index[:, 1:])
        if self.way == "order":
            return Selection(keep.index.flip(1))
        if self.way == "adaptive":
            return replace(keep, valid=torch.ones_like(keep.index, dtype=torch.bool))
        return keep


@pytest.mark.parametrize(("way", "message"), [("count", "kept 10 tokens at layer -4, 11 were due"), ("adaptive", "depth 0 only")])
def test_a_wrong_choice_is_refused(family, tools, way: str, message: str) -> None:
    with pytest.raises((UserError, Unsupported), match=message):
        Pipeline(family, Wrong(way=way), lambda n: 6).encode([tools.picture(40, 30)])


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        ((Cut(-1, 8),), r"vision layers \[-1\]; the features pass layers -4 to -2"),
        ((Cut(-5, 8),), r"\[-5\]"),
        ((Cut(0, 8),), r"\[0\]"),
        ((Cut(-3, 8), Cut(-3, 6)), "layers must ascend"),
        ((Cut(-2, 8), Cut(-3, 6)), "layers must ascend"),
        ((Cut(-3, 6), Cut(-2, 8)), "counts descend"),
        ((Cut(-3, 17),), "counts descend"),
        ((Cut(-3, 0),), "counts descend to 1"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(family, tools, cuts, message: str) -> None:
    @dataclass(frozen=True)
    class Planning(Pruner):
        def tower_cuts(self, budget, n, shape):
            return cuts

    with pytest.raises(UserError, match=message):
        Pipeline(family, Planning(), lambda n: 8).encode([tools.picture(40, 30)])


def test_a_misplaced_choice_is_refused_after_the_answer(family, tools) -> None:
    batch = tools.prepare(family, Wrong(way="order"), 0.5, tools.MIXED[:1])
    with pytest.raises(UserError, match="not ascending and unique"):
        tools.forward(family, batch)


def test_no_tower_runs_where_nothing_is_to_remain(tiny, tools) -> None:
    for name in TINY:
        family, ran = tiny(name), []
        handle = family.model.get_encoder(modality="image").register_forward_pre_hook(lambda *_, ran=ran: ran.append(1))
        batch = tools.prepare(family, build("text-only", {}), 0.5, tools.MIXED)
        logits, _ = tools.forward(family, batch)
        assert not ran
        (seen,) = Pipeline(family, collecting(Evidence("hidden", 1)), lambda n: 0).encode([tools.picture(40, 30)])
        handle.remove()
        assert ran
        assert seen.evidence[Evidence("hidden", 1)].shape[1] == seen.grid.n
        assert batch.images == ()
        assert logits.shape[1] == batch.layout.width


def test_cuts_in_the_tower_and_in_the_decoder_go_together(family, tools) -> None:
    """Evidence of the decoder is not mistaken for that of a layer of the tower."""

    @dataclass(frozen=True)
    class Both(Pruner):
        def needs(self, shape):
            return frozenset(Evidence(kind, 0) for kind in ("embeddings", "row", "text", "layer_keys")) | {Evidence("cls", 0)}

        def tower_cuts(self, budget, n, shape):
            return (Cut(-4, 12),)

        def cuts(self, budget, n, shape):
            return (Cut(0, 12), Cut(2, 4))

        def score(self, view):
            if view.cut.at == 0:
                return view.features[..., 0]
            return view.evidence[Evidence("cls" if view.cut.at < 0 else "row", 0)]

    batch = tools.prepare(family, Both(), 0.5, tools.MIXED[:1])
    _, trace = tools.forward(family, batch)
    assert trace.per_layer[0] == [12, 12, 4, 4, 4, 4]


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_rows_of_an_impossible_size_are_refused(family, tools, size: float) -> None:
    @dataclass(frozen=True)
    class Weighing(Pruner):
        def tower_cuts(self, budget, n, shape):
            return (Cut(-2, n),)

        def reduce(self, view):
            return Selection(view.index, view.features, size=torch.full_like(view.features[..., 0], size))

    batch = tools.prepare(family, Weighing(), 1.0, tools.MIXED[:1])
    with pytest.raises(UserError, match="rows of an impossible size"):
        tools.forward(family, batch)


def test_a_row_without_a_place_stands_for_itself(family, tools) -> None:
    sizes = []

    @dataclass(frozen=True)
    class Resting(Pruner):
        """Gives each token its number as size, then puts a mean of its own before the first five."""

        def tower_cuts(self, budget, n, shape):
            return (Cut(-4, n), Cut(-3, 6), Cut(-2, 6))

        def reduce(self, view):
            if view.cut.at == -4:
                return Selection(view.index, view.features, size=torch.arange(1.0, view.n + 1).expand(len(view.features), -1))
            if view.cut.at == -3:
                index = torch.arange(-1, 5).expand(len(view.features), -1)
                return Selection(index, torch.cat([view.features.mean(1, keepdim=True), view.features[:, :5]], dim=1))
            if view.cut.at < 0:
                sizes.append(view.size)
            return Selection(torch.arange(view.n).expand(len(view.features), -1), view.features)

    (found,) = Pipeline(family, Resting(), lambda n: 6).encode([tools.picture(40, 30)])
    assert sizes[0].tolist() == [[1, 1, 2, 3, 4, 5]]
    assert found.index.tolist() == [[-1, 0, 1, 2, 3, 4]]


def test_a_tile_sees_the_places_of_its_own_tokens(tiny, tools) -> None:
    seen = []

    @dataclass(frozen=True)
    class Tiled(Pruner):
        scope = "tile"

        def score(self, view):
            seen.append(view.index)
            return view.features[..., 0]

    tools.prepare(tiny("llava_next"), Tiled(), 0.5, tools.MIXED[:1])
    assert seen[0].tolist() == [list(range(16))] * 5


def test_the_example_of_the_documentation_conforms(tmp_path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    (tmp_path / "cls_drop.py").write_text(next(block for block in blocks if "class ClsDrop" in block))
    report = check(f"{tmp_path}/cls_drop.py:ClsDrop", {}, None, {name: cache(builder) for name, builder in TINY.items()})
    statuses = {(result.family, result.status) for result in report.results if result.property != "masking"}
    assert statuses == {("llava", "pass"), ("llava_next", "pass"), *((name, "unsupported") for name in BEHIND)}, render(report)
