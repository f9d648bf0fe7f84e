"""Random pruning: the floor that every method must beat."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar

from vtpbench.pruners.base import Pruner, TokenView
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.transfer import copy_to_device

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Random(Pruner):
    """Keep the first tokens of one seeded permutation per image, in their original order.

    The permutation depends on the seed and the image's name alone: not on batch, order, worker or device, and a smaller
    budget keeps a subset of a larger one.

    Source: baseline of the field; the seeding is this project's.
    """

    source: ClassVar[str] = "baseline"
    nested: ClassVar[bool] = True
    seed: int = 0

    def selection_order(self, view: TokenView) -> Tensor:
        """Take a prefix of each image's permutation."""
        rows = [torch.randperm(view.n, generator=private_generator(self.seed, key))[: view.cut.keep] for key in view.keys]
        return copy_to_device(torch.stack(rows), view.features.device)


def private_generator(*parts: object) -> torch.Generator:
    """CPU generator seeded by names and numbers, independent of every global state."""
    digest = sha256("\x1f".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
