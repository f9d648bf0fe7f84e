"""Key-norm pruning: keep the vision tokens whose keys lie farthest from their mean where the language model is cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from vtpbench.pruners.base import Cut, Evidence, ModelShape, Pruner, TokenView
from vtpbench.pruners.budget import require_reachable


@dataclass(frozen=True)
class KeyNorm(Pruner):
    """Rank vision tokens by the norm of their centred keys in the layer before the cut; some models make all keys equally long.

    Source: example of this project.
    """

    source: ClassVar[str] = "example"
    layer: int = 1
    """Layers that see all tokens."""

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """Ask for the keys of the layer that has just run."""
        del shape
        return frozenset({Evidence("layer_keys", layer=-1)})

    def cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        """Cut once, to the count that makes the average over all layers the budget."""
        require_reachable(budget, (Cut(self.layer, 1),), n, shape, "key-norm")
        layers = shape.decoder_layers
        return (Cut(self.layer, round((layers * budget - self.layer * n) / (layers - self.layer))),)

    def score(self, view: TokenView) -> Tensor:
        """Rank the tokens, `(images, n)`; higher stays."""
        keys = view.get("layer_keys")
        return (keys - keys.mean(dim=1, keepdim=True)).norm(dim=-1)
