"""Which tokens a pruner merged, and into which rows: asked of the derivative, so that every pruner can be asked."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from vtpbench.pruners.base import Keep, Pruner, TokenView, take


def merged_rows(view: TokenView, keep: Keep) -> Tensor:
    """Mark the rows of a single image that are more than the token whose place they take, `(k,)` bool."""
    if keep.features is None:
        return torch.zeros_like(keep.index[0], dtype=torch.bool)
    same = (keep.features == take(view.features, keep.index.clamp(min=0))).all(dim=-1)
    return (~same & (keep.index >= 0))[0]


def merged_into(pruner: Pruner, view: TokenView, rows: Tensor) -> Tensor:
    """Find the row into which each arriving token of a single image was merged.

    A token was merged into a row whose features change with its own; of several, into the one that changes most.

    Parameters
    ----------
    view : as the pruner saw it; the pruner is run on it once more
    rows : (k,) bool; the rows in question

    Returns
    -------
    (n,) int64 row, -1 = none; none at all where the pruner computes outside torch, and has no derivative

    """
    nowhere = torch.full((view.n,), -1)
    with torch.inference_mode(False), torch.enable_grad():
        tracked = _copied(view)
        features = tracked.features.requires_grad_()
        try:
            found = pruner.apply(tracked).features
            if found is None or not found.requires_grad:
                return nowhere
            numbers = rows.nonzero().flatten().tolist()
            weights = [_change(found[0, row].sum(), features) for row in numbers]
        except RuntimeError:  # how torch refuses to leave it, or to differentiate what happened there
            return nowhere
    most = torch.stack(weights).max(dim=0)
    return torch.where(most.values > 0, torch.tensor(numbers)[most.indices.cpu()], nowhere)


def _change(row: Tensor, features: Tensor) -> Tensor:
    """By how much a row changes with each token, `(n,)`, on the CPU."""
    (gradient,) = torch.autograd.grad(row, features, retain_graph=True)
    return gradient[0].abs().amax(dim=-1).cpu()


def _copied(view: TokenView) -> TokenView:
    """Copy a view's tensors: those that were made for inference take no part in derivatives."""

    def copy(value: Any) -> Any:
        return value.clone() if isinstance(value, Tensor) else value

    fields = {field.name: copy(getattr(view, field.name)) for field in dataclasses.fields(view)}
    return TokenView(**{**fields, "evidence": {name: copy(value) for name, value in view.evidence.items()}})
