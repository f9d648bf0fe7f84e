"""Two pruners in sequence: one before the language model, one inside it, and one budget for both."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vtpbench.pruners.base import LLAVA_1_5_7B, Cut, Evidence, Grid, ModelShape, Pruner, Selection, TokenView
from vtpbench.pruners.errors import BadOption, Impossible, Infeasible, Unsupported
from vtpbench.pruners.registry import build

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Sequence(Pruner):
    """Let `first` leave a share of the tokens to the language model, and `second` cut these inside it down to the budget.

    The budget is the average over the decoder layers, as ever. `second` plans for it as for an image that had no more tokens
    than `first` leaves, and sees what is left: hidden states of merged rows as of others. It says what becomes of positions.

    Options
    -------
    first, second : names of the pruners
    first_options, second_options : theirs, also the seed of one that draws; what is not given is filled in
    share : tokens that `first` leaves, of those of the image; above the budget, or `second` has nothing to do

    Source: composition; the methods are those of their authors.
    """

    source: ClassVar[str] = "composition of two pruners"
    first: str = "vispruner"
    share: float = 0.75
    second: str = "fastv"
    first_options: dict[str, Any] = field(default_factory=dict, hash=False)
    second_options: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise BadOption("share", f"option share={self.share}: a sequence's first pruner leaves more than 0 and less than 1")
        for option in ("first", "second"):
            name, stage = getattr(self, option), self._stages[option]
            if reason := _unfit(stage, option):
                raise BadOption(option, f"pruner '{name}' cannot be the {option} of a sequence: {reason}")
            object.__setattr__(self, f"{option}_options", _options(stage))  # one measurement, one spelling

    @cached_property
    def _stages(self) -> Mapping[str, Pruner]:
        return {"first": build(self.first, self.first_options), "second": build(self.second, self.second_options)}

    @property
    def before(self) -> Pruner:
        """Who chooses before the language model."""
        return self._stages["first"]

    @property
    def inside(self) -> Pruner:
        """Who chooses inside it."""
        return self._stages["second"]

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the pruners that this one is made of."""
        return (self.first, self.second)

    @property
    def scope(self) -> Literal["image", "tile"]:  # type: ignore[override]  # of other pruners it is known without an instance
        """Whether tiles have shares of their own, which matters before the language model alone."""
        return self.before.scope

    @property
    def reads_question(self) -> bool:  # type: ignore[override]  # as above
        """Whether the choice before the language model depends on the question."""
        return self.before.reads_question

    @property
    def adaptive(self) -> bool:
        """Whether the count adapts to the image; before the language model it may not."""
        return self.inside.adaptive

    @property
    def position_rule(self) -> Literal["keep", "renumber"]:
        """What cuts inside the language model do to positions."""
        return self.inside.position_rule

    def fingerprint(self, shape: ModelShape) -> str:
        """Hash the files of both, where one has any."""
        own = [stage.fingerprint(shape) for stage in (self.before, self.inside)]
        return sha256("\0".join(own).encode()).hexdigest() if any(own) else ""

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """Ask for what both need."""
        return self.before.needs(shape) | self.inside.needs(shape)

    def entering(self, budget: int, n: int, shape: ModelShape) -> int:
        """Count the tokens that the first leaves of `n`, equally many of each tile where these have shares of their own."""
        tiles = (shape.tiles or 1) if self.scope == "tile" else 1
        left = tiles * round(self.share * n / tiles)
        if left <= budget:
            given = f"{self.first} with share={self.share:g} leaves {left} of {n} tokens"
            raise Infeasible(f"{given}, which must be more than the budget of {budget}; raise `share`, or lower the budget")
        return left

    def cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        """Plan both: the second's cuts are those of an image with the tokens that the first leaves."""
        left = self.entering(budget, n, shape)
        before, inside = self.before.cuts(left, n, shape), self.inside.cuts(budget, left, shape)
        if before != (Cut(0, left),) or not inside or inside[0].at <= 0:
            planned = ", ".join(f"{cut.keep} at layer {cut.at}" for cut in (*before, *inside))
            due = f"not {left} at layer 0 and others later"
            raise Unsupported(f"{self.first} and {self.second} are no sequence here: they plan {planned}, {due}")
        return before + inside

    def expected_average(self, budget: int, n: int, shape: ModelShape) -> float:
        """Average that a run must show: what the second one's must, for an image of so many tokens."""
        return self.inside.expected_average(budget, self.entering(budget, n, shape), shape)

    def apply(self, view: TokenView) -> Selection:
        """Let the one whose cut it is choose, each in its scope."""
        stage, seen = self._turn(view)
        return stage.apply(seen)

    def apply_segments(self, view: TokenView) -> Tensor | None:
        """Ask the one whose cut it is for its groups."""
        stage, seen = self._turn(view)
        return stage.apply_segments(seen)

    def _turn(self, view: TokenView) -> tuple[Pruner, TokenView]:
        """Say whose cut it is, and what that one sees: its own cuts are numbered from 0."""
        return (self.before, view) if view.cut.at == 0 else (self.inside, replace(view, stage=view.stage - 1))


def _options(pruner: Pruner) -> dict[str, Any]:
    return {option.name: getattr(pruner, option.name) for option in dataclasses.fields(pruner) if option.init}


def _unfit(stage: Pruner, turn: str) -> str:
    """Say why a pruner cannot have its turn in a sequence; empty where nothing is known against it."""
    if isinstance(stage, Sequence):
        return "it is one itself; name two pruners that act by themselves"
    if turn == "first" and stage.adaptive:
        return "its count adapts to the image, so that nothing can be planned behind it; choose options with a fixed count"
    if _acts_earlier(stage):
        return "it acts on the image or inside the vision tower; name one that cuts before the language model, and one inside"
    cuts: tuple[Cut, ...] | None = None
    with suppress(Impossible):  # of this budget; where it can be met, `cuts` looks again
        cuts = stage.cuts(192, 576, LLAVA_1_5_7B)
    if cuts is None:
        return ""
    if turn == "first" and cuts != (Cut(0, 192),):
        return "it does not just cut to a count before the language model, as 'vispruner' does"
    if turn == "second" and not (cuts and cuts[0].at > 0):
        return "it does not cut inside the language model alone, as 'fastv' does"
    return ""


def _acts_earlier(stage: Pruner) -> bool:
    """Whether a pruner shrinks images, or cuts inside the vision tower."""
    with suppress(Impossible):
        return stage.target_grid(144, Grid(1, 24, 24), LLAVA_1_5_7B) is not None or bool(stage.tower_cuts(144, 576, LLAVA_1_5_7B))
    return True
