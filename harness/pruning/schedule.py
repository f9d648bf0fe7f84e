"""What a pruner plans on a model for images of one geometry: resolved once, then handed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from vtpbench.harness.pruning.shared_choices import SharedChoices
from vtpbench.pruners.base import Cut, Evidence, Grid, ModelShape, Pruner, Selection, TokenView
from vtpbench.pruners.errors import Unsupported, share

BudgetRule: TypeAlias = "Callable[[int], int | None]"
"""Tokens that an image of so many is to keep; None = no budget (vanilla)."""
SelectionObserver: TypeAlias = "Callable[[TokenView, Selection], None]"
"""Told what a pruner saw and what it chose, each time that it is asked."""


@dataclass(frozen=True)
class RecordedSelection:
    """What a pruner was shown, and what it chose."""

    view: TokenView
    keep: Selection


def no_budget(n: int) -> int | None:
    """Let every image keep all of its tokens."""
    del n
    return None


def ignore_selection(view: TokenView, selection: Selection) -> None:
    """Take no notice of a selection."""


@dataclass(frozen=True)
class Schedule:
    """A pruner's plan for images of one geometry on one model.

    Attributes
    ----------
    pruner : who chooses
    shape : the model
    needs : evidence to collect
    target_grid : height and width, in tokens, to which each tile shrinks before the tower; None leaves the image alone
    tower_cuts : inside the vision tower, layers counted from its end
    cuts : at depth 0 and inside the language model
    observer : told of every selection; no part of what makes two schedules equal
    shared : what rows on the same images need to find out once; None where each time all is asked anew

    """

    pruner: Pruner
    shape: ModelShape
    needs: frozenset[Evidence] = frozenset()
    target_grid: tuple[int, int] | None = None
    tower_cuts: tuple[Cut, ...] = ()
    cuts: tuple[Cut, ...] = ()
    observer: SelectionObserver = field(default=ignore_selection, compare=False, repr=False)
    shared: SharedChoices | None = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        """Name of the pruner in messages."""
        return type(self.pruner).__name__

    @property
    def skips_tower(self) -> bool:
        """Whether no token is to remain and nothing is to be seen: then the tower need not run."""
        return self.cuts[:1] == (Cut(0, 0),) and not self.needs

    @property
    def later_cuts(self) -> tuple[Cut, ...]:
        """What is to be done inside the language model."""
        return tuple(cut for cut in self.cuts if cut.at > 0)

    def choose(self, view: TokenView) -> Selection:
        """Ask the pruner, and tell the observer."""
        selection = self.pruner.apply(view) if self.shared is None else self.shared.choose(self.pruner, view)
        self.observer(view, selection)
        return selection


def resolve(
    pruner: Pruner,
    budget: int | None,
    n: int,
    grid: Grid,
    shape: ModelShape,
    observer: SelectionObserver = ignore_selection,
) -> Schedule:
    """Ask a pruner, once, all that it plans for an image.

    Parameters
    ----------
    pruner : who is asked
    budget : average tokens over the decoder layers; None = no budget (vanilla)
    n : tokens with which the image would enter the language model
    grid : how the tower's tokens lie
    shape : the model
    observer : told of every selection

    Raises
    ------
    Infeasible : the budget is out of reach, or tiles cannot share it
    Unsupported : the model lacks what the pruner needs

    """
    needs = pruner.needs(shape)
    target: tuple[int, int] | None = None
    inside: tuple[Cut, ...] = ()
    if budget is not None:
        target = pruner.target_grid(budget, grid, shape)
        lying = grid if target is None else replace(grid, height=target[0], width=target[1])
        inside = pruner.tower_cuts(budget // grid.tiles, lying.n // grid.tiles, shape)
        if inside and shape.whole_tower:
            raise Unsupported(f"{shape.whole_tower}, and {type(pruner).__name__} takes some out there")
        if inside:
            share(budget, grid.tiles)
    cuts = pruner.cuts(n if budget is None else budget, n, shape)
    if pruner.scope == "tile" and shape.tiles is not None and cuts and cuts[0].at == 0:
        share(cuts[0].keep, shape.tiles)
    return Schedule(pruner, shape, needs, target, inside, cuts, observer)


@dataclass(frozen=True)
class EvidenceCollector(Pruner):
    """Takes nothing away, and sees the evidence that it `wants`."""

    wants: frozenset[Evidence] = frozenset()

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """Ask for the evidence that is wanted."""
        del shape
        return self.wants

    def cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        """Plan no cut: every token stays."""
        del budget, n, shape
        return ()


def collecting(*needs: Evidence) -> EvidenceCollector:
    """Make a pruner that only collects evidence of the vision tower."""
    return EvidenceCollector(frozenset(needs))
