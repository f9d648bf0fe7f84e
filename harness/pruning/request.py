"""What is asked of the vision tower: a pruner at a budget, as far as it acts before and inside the tower."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vtpbench.pruners.base import Cut, Evidence, Grid, ModelShape, Pruner
from vtpbench.pruners.errors import share


@dataclass(frozen=True)
class Observer(Pruner):
    """Takes nothing away, and sees the evidence that it `wants`."""

    wants: frozenset[Evidence] = frozenset()

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """Ask for it."""
        del shape
        return self.wants


def no_budget(n: int) -> int | None:
    """Set no budget: every image keeps all of its tokens."""
    del n
    return None


@dataclass(frozen=True)
class Request:
    """A pruner, and the tokens that an image of so many is to keep; None = no budget (vanilla)."""

    pruner: Pruner = Observer()
    budget: Callable[[int], int | None] = no_budget

    def size(self, grid: Grid, shape: ModelShape) -> tuple[int, int] | None:
        """Height and width, in tokens, to which each tile of an image is to shrink before the tower; None leaves it alone."""
        tokens = self.budget(grid.n)
        return None if tokens is None else self.pruner.target_grid(tokens, grid, shape)

    def acts_inside(self, n: int, grid: Grid, shape: ModelShape) -> bool:
        """Whether tokens are to leave inside the tower."""
        return bool(self._inside(n, grid, shape))

    def tower_cuts(self, n: int, grid: Grid, shape: ModelShape) -> tuple[Cut, ...]:
        """Cuts inside the tower for each tile of an image that would enter the language model with `n` tokens.

        Raises `Infeasible` where the tiles cannot share the budget equally.
        """
        tokens, cuts = self.budget(n), self._inside(n, grid, shape)
        if cuts and tokens is not None:
            share(tokens, grid.tiles)
        return cuts

    def _inside(self, n: int, grid: Grid, shape: ModelShape) -> tuple[Cut, ...]:
        """Ask for the cuts of a tile, whose share of the budget is rounded down."""
        tokens, tiles = self.budget(n), grid.tiles
        return () if tokens is None else self.pruner.tower_cuts(tokens // tiles, grid.n // tiles, shape)

    def wants_nothing(self, n: int, shape: ModelShape) -> bool:
        """Whether no token of an image of `n` is to remain and nothing is to be seen: then the tower need not run."""
        tokens = self.budget(n)
        cuts = () if tokens is None else self.pruner.cuts(tokens, n, shape)
        return cuts[:1] == (Cut(0, 0),) and not self.pruner.needs(shape)


def seeing(*needs: Evidence) -> Request:
    """Ask for evidence alone."""
    return Request(Observer(frozenset(needs)))
