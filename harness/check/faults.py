"""What is wrong with a single choice of a pruner, in words; None where nothing is."""

from __future__ import annotations

import torch

from vtpbench.harness.pruning.merging import dependence
from vtpbench.harness.pruning.schedule import RecordedSelection
from vtpbench.pruners.base import Pruner


def count_fault(choice: RecordedSelection) -> str | None:
    """Look whether as many tokens stay as are due."""
    view, keep = choice.view, choice.keep
    if keep.k == view.cut.keep and (keep.valid is None or keep.valid.all()):
        return None
    real = keep.k if keep.valid is None else int(keep.valid.sum(dim=1).min())
    return f"keeps {real} tokens at layer {view.cut.at}, {view.cut.keep} are due"


def size_fault(choice: RecordedSelection) -> str | None:
    """Look whether rows stand for some tokens each, and together for no more than arrived."""
    view, keep = choice.view, choice.keep
    if keep.size is None:
        return None
    real = torch.ones_like(keep.index, dtype=torch.bool) if keep.valid is None else keep.valid
    size = keep.size.float()
    if not bool((size.isfinite() & (size > 0) | ~real).all()):
        return f"rows at layer {view.cut.at} have sizes that are not finite and above 0: {size.tolist()}"
    arrived = torch.full((len(size),), float(view.n)) if view.size is None else view.size.float().sum(dim=1)
    stands_for = torch.where(real, size, 0).sum(dim=1)
    for found, most in zip(stands_for.tolist(), arrived.tolist(), strict=True):
        if found > most * (1 + 1e-4):  # means of sizes need not sum exactly
            return f"rows at layer {view.cut.at} stand for {found:.4g} tokens, {most:.4g} arrived"
    return None


def index_fault(choice: RecordedSelection) -> str | None:
    """Look whether indices are among the tokens and, where nothing is merged, ascending and unique."""
    view, keep = choice.view, choice.keep
    for row, index in enumerate(keep.index):
        real = index if keep.valid is None else index[keep.valid[row]]
        if not keep.merged and not bool((real.diff() > 0).all()):
            return f"indices are not ascending and unique: {real.tolist()}"
        if len(real) and not (-1 if keep.merged else 0) <= int(real.min()) <= int(real.max()) < view.n:
            return f"indices are not among the {view.n} tokens: {real.tolist()}"
    return None


def origin_fault(choice: RecordedSelection, pruner: Pruner) -> str | None:
    """Look whether each merged row depends on the token that its index names.

    Raises
    ------
    NoDerivative : this pruner cannot be asked

    """
    found = dependence(pruner, choice.view)
    if found is None:
        raise NoDerivative
    keep, changes = found
    named = keep.index.cpu()
    own = changes.gather(2, named.clamp(min=0)[..., None])[..., 0]
    strange = (own == 0) & (named >= 0)  # not a number is no proof
    if keep.valid is not None:
        strange &= keep.valid.cpu()
    if not strange.any():
        return None
    image, row = strange.nonzero()[0].tolist()
    at = choice.view.cut.at
    return f"row {row} at layer {at} has index {int(named[image, row])}, but does not change with that token's features"


class NoDerivative(Exception):
    """Rows were computed outside torch, so that no derivative tells what they are made of."""
