"""Pruners that break one rule each; the conformance kit must name the rule."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch

from vtpbench.pruners.base import Cut, Keep, Pruner, rank, top
from vtpbench.pruners.errors import Infeasible

CALLS = itertools.count()


@dataclass(frozen=True)
class Sound(Pruner):
    """The one that breaks none, for the others to start from."""

    def score(self, view):
        return view.features.norm(dim=-1)


@dataclass(frozen=True)
class Changing(Sound):
    def reduce(self, view):
        keep = super().reduce(view)
        return Keep(keep.index, view.features.gather(1, keep.index[..., None].expand(-1, -1, view.features.shape[-1])) * 1.01)


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
class Unreachable(Sound):
    def cuts(self, budget, n, shape):
        raise Infeasible("no budget suits it")
