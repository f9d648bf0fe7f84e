"""Verify what a pruner chose: a wrong choice would not fail later, it would give a wrong number."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vtpbench.pruners.base import Keep, Pruner, TokenView, take
from vtpbench.pruners.errors import Unsupported, UserError


def verified(keep: Keep, view: TokenView, pruner: Pruner) -> tuple[Keep, Tensor]:
    """Refuse a choice of the wrong shape; give it with its indices within reach, and whether it is `misplaced`.

    Raises
    ------
    UserError : another count than is due, parts that do not fit each other
    Unsupported : a count that adapts to the image anywhere but at depth 0

    """
    if keep.valid is not None and view.cut.at != 0:
        raise Unsupported(f"{type(pruner).__name__}: counts that adapt to the image are possible at depth 0 only")
    verify_shape(keep, view, pruner)
    return replace(keep, index=within_reach(keep, view.n)), misplaced(keep, view.n)


def kept_rows(tokens: Tensor, keep: Keep) -> Tensor:
    """Take what a choice leaves of `(images, n, dim)`, in the number format of the tokens."""
    return take(tokens, keep.index) if keep.features is None else keep.features.to(tokens.dtype)


def verify_shape(keep: Keep, view: TokenView, pruner: Pruner) -> None:
    """Refuse a choice of another count than is due, or whose parts do not fit each other; never waits for the device."""
    name, images = type(pruner).__name__, len(view.features)
    if keep.index.dim() != 2 or keep.index.shape[0] != images:
        raise UserError(f"{name} chose indices of shape {tuple(keep.index.shape)} for {images} images; give (images, k)")
    if keep.valid is None and keep.k != view.cut.keep:
        raise UserError(f"{name} kept {keep.k} tokens at layer {view.cut.at}, {view.cut.keep} were due")
    for part, value in (("features", keep.features), ("valid", keep.valid), ("size", keep.size)):
        if value is not None and value.shape[:2] != keep.index.shape:
            raise UserError(f"{name} gave {part} of shape {tuple(value.shape)} for indices of {tuple(keep.index.shape)}")


def misplaced(keep: Keep, n: int) -> Tensor:
    """Whether an index is not among the `n` tokens or, where nothing is merged, indices are not ascending; a scalar bool.

    A merged row may name no token (-1), and may stand anywhere. Filling does not count. Nor may a row stand for no token, or
    for a number of tokens that is none.
    """
    index = keep.index
    real = torch.ones_like(index, dtype=torch.bool) if keep.valid is None else keep.valid
    outside = (index < (0 if keep.features is None else -1)) | (index >= n)
    wrong = (real & outside).any()
    if keep.size is not None:
        wrong = wrong | ~((keep.size > 0) & keep.size.isfinite()).all()
    if keep.features is not None or keep.k < 2:
        return wrong
    before = torch.where(real, index, -1).cummax(dim=1).values[:, :-1]
    return wrong | (real[:, 1:] & (index[:, 1:] <= before)).any()


def within_reach(keep: Keep, n: int) -> Tensor:
    """Bring wrong indices among the `n` tokens, so that gathering by them does not fail before `misplaced` is asked."""
    return keep.index.clamp(0 if keep.features is None else -1, n - 1)


def origins(index: Tensor, chosen: Tensor) -> Tensor:
    """Place among the original tokens of each row that continues an arriving one, `(..., k)`; -1 for a row that has none.

    `index` are the places of what arrived, `(..., n)`; `chosen` says which of these each row continues.
    """
    return torch.where(chosen < 0, -1, index.gather(-1, chosen.clamp(min=0)))


def refuse_misplaced(wrong: bool, pruner: Pruner) -> None:
    """Raise `UserError` for what `misplaced` found."""
    if wrong:
        name = type(pruner).__name__
        what = "indices that are not among the tokens, or not ascending and unique, or rows of an impossible size"
        raise UserError(f"{name} chose {what}; see `vtpbench check`")
