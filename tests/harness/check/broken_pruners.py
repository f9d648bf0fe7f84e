"""Pruners that break one rule each; the conformance kit must name the rule."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch

from vtpbench.pruners.base import Cut, Pruner, Selection, rank, take, top
from vtpbench.pruners.errors import Infeasible

CALLS = itertools.count()
LAST = {}


@dataclass(frozen=True)
class Sound(Pruner):
    """The one that breaks none, for the others to start from."""

    def score(self, view):
        return view.features.norm(dim=-1)


@dataclass(frozen=True)
class SoundInSteps(Sound):
    """As sound, at two cuts: one before the language model and one in its middle."""

    def cuts(self, budget, n, shape):
        first = min(n, budget + 2)
        return (Cut(0, first), Cut(shape.decoder_layers // 2, 2 * budget - first))


@dataclass(frozen=True)
class SoundInside(Sound):
    """As sound, inside the vision tower."""

    def tower_cuts(self, budget, n, shape):
        return (Cut(shape.feature_layer - shape.vision_layers, budget),)


@dataclass(frozen=True)
class Changing(Sound):
    def reduce(self, view):
        keep = super().reduce(view)
        return Selection(
            keep.index, view.features.gather(1, keep.index[..., None].expand(-1, -1, view.features.shape[-1])) * 1.01
        )


@dataclass(frozen=True)
class OneTooFew(Sound):
    def select(self, view):
        return top(self.score(view), view.cut.keep - 1)


@dataclass(frozen=True)
class OneTooFewInside(OneTooFew):
    def cuts(self, budget, n, shape):
        return (Cut(3, 2 * budget - n + 1),)


@dataclass(frozen=True)
class Unsorted(Sound):
    def select(self, view):
        return rank(self.score(view))[:, : view.cut.keep]


@dataclass(frozen=True)
class Repeating(Sound):
    def select(self, view):
        index = super().select(view)
        return torch.cat([index[:, :1], index[:, :-1]], dim=1)


@dataclass(frozen=True)
class GlobalRandom(Pruner):
    def score(self, view):
        return torch.rand(view.features.shape[:2])


@dataclass(frozen=True)
class Reseeding(Pruner):
    """Chooses the same each time, but the next one who draws gets other numbers."""

    def score(self, view):
        torch.manual_seed(0)
        return torch.rand(view.n).expand(view.features.shape[:2])


@dataclass(frozen=True)
class Neighbourly(Sound):
    def score(self, view):
        return (view.features - view.features.mean(dim=0)).norm(dim=-1)


@dataclass(frozen=True)
class Unnested(Sound):
    nested = True

    def score(self, view):
        return super().score(view) * (1 if 2 * view.cut.keep > view.n else -1)


@dataclass(frozen=True)
class Stateful(SoundInside):
    """Carries something from the tower to depth 0, which is of other tiles once there are several passes."""

    def reduce(self, view):
        keep = super().reduce(view)
        if view.cut.at < 0:
            LAST["rows"] = take(view.features, keep.index).mean(dim=1)
            return keep
        if view.n == view.grid.n:
            return keep
        tiles = torch.arange(len(keep.index)) % len(LAST["rows"])
        return Selection(keep.index, view.features + LAST["rows"][tiles][:, None])


@dataclass(frozen=True)
class Averaging(Sound):
    """Sound but for what it says of its rows: each is a mean of a token and the best."""

    def reduce(self, view):
        keep = super().reduce(view)
        best = take(view.features, rank(self.score(view))[:, :1])
        rows = take(view.features, keep.index)
        return keep if keep.k == view.n else Selection(self.named(keep.index, view), (3 * rows + best) / 4)

    def named(self, index, view):
        return index


@dataclass(frozen=True)
class Lying(Averaging):
    """Says that its rows are at the places of tokens that it left out."""

    def named(self, index, view):
        gone = torch.ones(view.features.shape[:2]).scatter(1, index, 0)
        return top(gone, index.shape[1])


@dataclass(frozen=True)
class LyingInside(SoundInside, Lying):
    pass


@dataclass(frozen=True)
class Elsewhere(Averaging):
    """Merges outside torch."""

    def reduce(self, view):
        keep = super().reduce(view)
        return keep if keep.features is None else Selection(keep.index, torch.from_numpy(keep.features.numpy() * 1))


@dataclass(frozen=True)
class Outgrowing(Sound):
    """Its rows stand for more tokens than there are."""

    def reduce(self, view):
        index = self.select(view)
        return Selection(index, size=torch.full(index.shape, 2.0 * view.n / index.shape[1]))


@dataclass(frozen=True)
class OutgrowingInside(SoundInside, Outgrowing):
    pass


@dataclass(frozen=True)
class ByPlaceInBatch(Sound):
    def score(self, view):
        sign = torch.tensor([(-1.0) ** row for row in range(len(view.keys))])
        return sign[:, None] * super().score(view)


@dataclass(frozen=True)
class Counting(Sound):
    def score(self, view):
        return super().score(view).roll(next(CALLS), dims=1)


@dataclass(frozen=True)
class Greedy(Sound):
    def cuts(self, budget, n, shape):
        return (Cut(0, min(n, budget + 3)),)


@dataclass(frozen=True)
class Crashing(Pruner):
    def score(self, view):
        raise ZeroDivisionError("no tokens")


@dataclass(frozen=True)
class Misfitting(Sound):
    """Breaks in a line of its own, each time with other numbers."""

    def score(self, view):
        return super().score(view) + torch.ones(view.n + view.cut.keep)


@dataclass(frozen=True)
class Fractions(Sound):
    """Gives numbers that are no indices, over which the harness would stumble."""

    def select(self, view):
        return super().select(view).float()


@dataclass(frozen=True)
class Unmakeable(Sound):
    def __post_init__(self):
        raise ZeroDivisionError("no tokens")


@dataclass(frozen=True)
class Unreachable(Sound):
    def cuts(self, budget, n, shape):
        raise Infeasible("no budget suits it")
