"""Rows that a pruner gives in the language model's space."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from vtpbench.harness.check.faults import origin_fault
from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.pruning.merging import merged_into, merged_rows
from vtpbench.harness.pruning.pipeline import Pipeline, Prompt
from vtpbench.harness.pruning.schedule import RecordedSelection
from vtpbench.pruners.base import Cut, Evidence, Pruner, Selection, take
from vtpbench.pruners.errors import Unsupported, UserError


@dataclass(frozen=True)
class First(Pruner):
    """Keeps the first tokens, at one layer."""

    at: int = 0

    def cuts(self, budget, n, shape):
        return (Cut(self.at, budget),)

    def select(self, view):
        return torch.arange(view.cut.keep).expand(len(view.features), -1)


@dataclass(frozen=True)
class FirstProjected(First):
    """The same, as the language model would get them."""

    def needs(self, shape):
        return frozenset({Evidence("projected")})

    def reduce(self, view):
        index = self.select(view)
        rows = take(view.get("projected"), index) if view.cut.at == 0 else take(view.features, index)
        return Selection(index, rows, projected=True)


@dataclass(frozen=True)
class MeansProjected(FirstProjected):
    """Each row is the mean of its token and the one behind it, which it may or may not name."""

    named: int = 0

    def reduce(self, view):
        index = self.select(view)
        rows = (take(view.get("projected"), index) + take(view.get("projected"), index + 1)) / 2
        return Selection(index + self.named, rows, projected=True)


@dataclass(frozen=True)
class FirstProjectedInside(FirstProjected):
    """The same inside the tower."""

    def tower_cuts(self, budget, n, shape):
        return (Cut(shape.feature_layer - shape.vision_layers, budget),)

    def reduce(self, view):
        index = self.select(view)
        return Selection(index, take(view.features, index), projected=view.cut.at < 0)


@pytest.mark.parametrize("name", TINY)
def test_they_skip_the_projector_and_nothing_else(name: str, tiny, tools) -> None:
    family = tiny(name)
    plain, _ = tools.forward(family, tools.prepare(family, First(), 0.5, tools.MIXED))
    projected, trace = tools.forward(family, tools.prepare(family, FirstProjected(), 0.5, tools.MIXED))
    torch.testing.assert_close(projected, plain, rtol=0, atol=1e-5)
    assert trace.per_layer


def test_images_with_and_without_them_may_stand_in_one_prompt(tiny, tools) -> None:
    family = tiny("llava")
    done, plain = (tools.prepare(family, pruner, 0.5, tools.MIXED).images for pruner in (FirstProjected(), First()))
    mixed = [done[0], plain[1], plain[2], done[3]]
    torch.testing.assert_close(family.embed_images(mixed), family.embed_images(plain), rtol=0, atol=1e-5)
    assert [image.projected for image in mixed] == [True, False, False, True]


@pytest.mark.parametrize(("pruner", "at"), [(FirstProjected(at=2), 2), (FirstProjectedInside(), -2)])
def test_they_are_refused_where_no_projector_follows(pruner: Pruner, at: int, tiny, tools) -> None:
    family = tiny("llava")
    with pytest.raises(Unsupported, match=rf"at depth 0 only, not at {at}"):
        tools.forward(family, tools.prepare(family, pruner, 0.5, tools.MIXED))


@dataclass(frozen=True)
class Unsaid(First):
    """Gives rows of a width that suits no space, or says that rows are projected and gives none."""

    given: str = ""

    def reduce(self, view):
        index = self.select(view)
        if not self.given:
            return Selection(index, projected=True)
        rows = torch.cat([view.features, view.features], dim=-1)
        return Selection(index, take(rows, index), projected=self.given == "projected")


@pytest.mark.parametrize(
    ("given", "message"),
    [("", "but gives none"), ("projected", "in the language model's space"), ("tower", "like the tokens that arrive")],
)
def test_rows_must_be_what_the_pruner_says(given: str, message: str, tiny, tools) -> None:
    family = tiny("llava")
    with pytest.raises(UserError, match=message):
        tools.prepare(family, Unsaid(given=given), 0.5, tools.MIXED)


def recorded(pruner: Pruner, tiny, tools) -> RecordedSelection:
    choices: list[RecordedSelection] = []
    observer = lambda view, keep: choices.append(RecordedSelection(view, keep))  # noqa: E731
    pipeline = Pipeline(tiny("llava"), pruner, lambda n: n // 2, observer)
    pipeline.select(pipeline.encode([tools.picture(40, 30)]), ["a"])
    return choices[0]


def test_what_they_are_made_of_is_asked_of_the_projected_tokens(tiny, tools) -> None:
    assert origin_fault(recorded(MeansProjected(), tiny, tools), MeansProjected()) is None
    fault = origin_fault(recorded(MeansProjected(named=2), tiny, tools), MeansProjected(named=2))
    assert fault == "row 0 at layer 0 has index 2, but does not change with that token's features"


def test_pictures_tell_merged_rows_from_chosen_ones(tiny, tools) -> None:
    chosen, means = (recorded(pruner, tiny, tools) for pruner in (FirstProjected(), MeansProjected()))
    assert not merged_rows(chosen.view, chosen.keep).any()
    rows = merged_rows(means.view, means.keep)
    assert rows.all()
    assert merged_into(MeansProjected(), means.view, rows).tolist()[:2] == [0, 0]


def test_they_come_along_to_the_prompt(tiny, tools) -> None:
    pipeline = Pipeline(tiny("llava"), FirstProjected(), lambda n: 3)
    (row,) = pipeline.run([Prompt("a", "What?", (tools.picture(40, 30),))], 1).images
    assert [image.projected for image in row] == [True]
