"""What several rows ask of the same pictures and questions: done for the first of them, and kept for the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vtpbench.pruners.base import Pruner, Selection, TokenView

if TYPE_CHECKING:
    from torch import Tensor


class SharedChoices:
    """Orders of tokens and embeddings of questions, for the pictures of one group; it lives no longer than these are held.

    Parameters
    ----------
    kept : for each row its pruner, and how many tokens that keeps before the language model

    """

    def __init__(self, kept: Sequence[tuple[Pruner, int]] = ()) -> None:
        self._kept = tuple(kept)
        self._orders: list[_Order] = []
        self._embedded: dict[tuple[str, ...], Tensor] = {}

    def embed(self, questions: tuple[str, ...], embed: Callable[[Sequence[str]], Tensor]) -> Tensor:
        """Give questions as `embed` does, `(questions, joint)`: all at once, in the batch that one row alone would make."""
        if questions not in self._embedded:
            self._embedded[questions] = embed(questions)
        return self._embedded[questions]

    def choose(self, pruner: Pruner, view: TokenView) -> Selection:
        """Let a pruner choose; one whose choices are `nested` puts the tokens in order once, for the largest budget."""
        if not pruner.nested or view.cut.at != 0:
            return pruner.apply(view)
        known = next((order for order in self._orders if order.serves(pruner, view)), None)
        if known is None:
            most = max(keep for own, keep in (*self._kept, (pruner, view.cut.keep)) if own == pruner)
            tokens = pruner.apply_order(replace(view, cut=replace(view.cut, keep=most)))
            known = _Order(pruner, view.keys, view.questions, most, tokens)
            self._orders.append(known)
        return pruner.take_first(known.tokens, view)


@dataclass(frozen=True)
class _Order:
    """What a pruner said of pictures, and questions where it reads these, for a budget of `keep`."""

    pruner: Pruner
    keys: tuple[str, ...]
    questions: tuple[str, ...]
    keep: int
    tokens: Tensor

    def serves(self, pruner: Pruner, view: TokenView) -> bool:
        """Whether another choice begins this order; pruners are compared, as they need not be hashable."""
        asked = (self.keys, self.questions) == (view.keys, view.questions)
        return asked and self.keep >= view.cut.keep and self.pruner == pruner
