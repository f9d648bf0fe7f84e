"""Which tokens a pruner merged, and into which rows: asked of the derivative, so that every pruner can be asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vtpbench.pruners.base import Pruner, Selection, TokenView, take
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def merged_rows(view: TokenView, keep: Selection) -> Tensor:
    """Mark the rows of a single image that are more than the token whose place they take, `(k,)` bool."""
    if keep.features is None:
        return torch.zeros_like(keep.index[0], dtype=torch.bool)
    arrived = take(_forms(view, keep.projected)[-1], keep.index.clamp(min=0))
    if arrived.shape != keep.features.shape:  # projected by the pruner itself
        return (keep.index >= 0)[0]
    same = (keep.features == arrived).all(dim=-1)
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
    nowhere, numbers = torch.full((view.n,), -1), rows.nonzero().flatten().tolist()
    found = dependence(pruner, view, numbers)
    if found is None:
        return nowhere
    most = found[1][0].max(dim=0)
    return torch.where(most.values > 0, torch.tensor(numbers)[most.indices], nowhere)


def dependence(pruner: Pruner, view: TokenView, rows: Sequence[int] | None = None) -> tuple[Selection, Tensor] | None:
    """Choose once more, and find by how much each row (by default all) changes with each token, `(images, rows, n)` on the CPU.

    None where the pruner merges nothing, or computes outside torch and has no derivative.
    """
    with torch.inference_mode(False), torch.enable_grad():
        tracked = _copied(view)
        for form in _forms(tracked, projected=True):
            form.requires_grad_()
        try:
            keep = pruner.apply(tracked)
            if keep.features is None or not keep.features.requires_grad:
                return None
            # channels count unequally: where a row is centred, their plain sum never changes
            ramp = torch.linspace(1, 2, keep.features.shape[-1], device=keep.features.device)
            found = (keep.features.float() @ ramp).sum(dim=0)  # of all images at once: none depends on another
            forms = _forms(tracked, keep.projected)
            changes = [_change(found[row], forms) for row in (range(keep.k) if rows is None else rows)]
        except RuntimeError:  # how torch refuses to leave it, or to differentiate what happened there
            return None
    return keep, torch.stack(changes, dim=1)


def _forms(view: TokenView, projected: bool) -> list[Tensor]:
    """List forms of the arriving tokens: as they arrive and, for projected rows, as the pruner saw them projected."""
    return [view.features, *(value for need, value in view.evidence.items() if projected and need.kind == "projected")]


def _change(row: Tensor, forms: Sequence[Tensor]) -> Tensor:
    """By how much a row changes with each token in any of its forms, `(images, n)`, on the CPU."""
    gradients = torch.autograd.grad(row, forms, retain_graph=True, allow_unused=True)
    return torch.stack([each.abs().amax(dim=-1) for each in gradients if each is not None]).amax(dim=0).cpu()


def _copied(view: TokenView) -> TokenView:
    """Copy a view's tensors: those that were made for inference take no part in derivatives."""

    def copy(value: Any) -> Any:
        return value.clone() if isinstance(value, torch.Tensor) else value

    fields = {field.name: copy(getattr(view, field.name)) for field in dataclasses.fields(view)}
    return TokenView(**{**fields, "evidence": {name: copy(value) for name, value in view.evidence.items()}})
