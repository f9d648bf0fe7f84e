"""Verify what a pruner chose: a wrong choice would not fail later, it would give a wrong number."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vtpbench.pruners.base import Selection, TokenView, take
from vtpbench.pruners.errors import Unsupported, UserError
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def validate(keep: Selection, view: TokenView, name: str) -> tuple[Selection, Tensor]:
    """Refuse a selection of the wrong shape; else give it as `clamp_and_flag` does. `name` is the pruner's.

    Raises
    ------
    UserError : another count than is due, parts that do not fit each other
    Unsupported : a count that adapts to the image, or projected features, anywhere but at depth 0

    """
    if keep.valid is not None and view.cut.at != 0:
        raise Unsupported(f"{name}: counts that adapt to the image are possible at depth 0 only")
    if keep.projected and view.cut.at != 0:
        raise Unsupported(f"{name}: features in the language model's space are possible at depth 0 only, not at {view.cut.at}")
    check_shapes(keep, view, name)
    return clamp_and_flag(keep, view.n)


def selected_rows(tokens: Tensor, keep: Selection) -> Tensor:
    """Take what a choice leaves of `(images, n, dim)`, in the number format of the tokens."""
    return take(tokens, keep.index) if keep.features is None else keep.features.to(tokens.dtype)


def check_shapes(keep: Selection, view: TokenView, name: str) -> None:
    """Refuse a choice of another count than is due, or whose parts do not fit each other; never waits for the device."""
    images = len(view.features)
    if keep.index.dim() != 2 or keep.index.shape[0] != images:
        raise UserError(f"{name} chose indices of shape {tuple(keep.index.shape)} for {images} images; give (images, k)")
    if keep.index.dtype not in (torch.int32, torch.int64):
        raise UserError(f"{name} chose indices in {str(keep.index.dtype).removeprefix('torch.')}; give int64")
    if keep.valid is None and keep.k != view.cut.keep:
        raise UserError(f"{name} kept {keep.k} tokens at layer {view.cut.at}, {view.cut.keep} were due")
    for part, value in (("features", keep.features), ("valid", keep.valid), ("size", keep.size)):
        if value is not None and value.shape[:2] != keep.index.shape:
            raise UserError(f"{name} gave {part} of shape {tuple(value.shape)} for indices of {tuple(keep.index.shape)}")
    if keep.projected and keep.features is None:
        raise UserError(f"{name} says that its features are projected, but gives none; give `features`, or leave `projected` out")
    width = view.shape.decoder_width if keep.projected else view.features.shape[-1]
    if keep.features is not None and keep.features.shape[-1] != width:
        where = "in the language model's space, as `projected` says," if keep.projected else "like the tokens that arrive"
        raise UserError(f"{name} gave features of width {keep.features.shape[-1]}; {where} they have {width}")


def clamp_and_flag(keep: Selection, n: int) -> tuple[Selection, Tensor]:
    """Bring indices among the `n` tokens, so that gathering by them cannot fail; and say whether the choice is wrong.

    Wrong, a scalar bool: an index that is not among the tokens or, where nothing is merged, indices that are not ascending. A
    merged row may name no token (-1), and may stand anywhere. Filling does not count. Nor may a row stand for no token, or
    for a number of tokens that is none.
    """
    index, real = keep.index, keep.valid
    within = index.clamp(-1 if keep.merged else 0, n - 1)
    outside = index != within
    if real is not None:
        outside = outside & real
    if keep.size is not None:  # neither 0 nor less, infinite or no number: what clamping leaves as it is
        size, limits = keep.size.float(), torch.finfo(torch.float32)
        outside = outside | (size != size.clamp(limits.tiny, limits.max))
    wrong = outside.any()
    if not keep.merged and keep.k > 1:
        if real is None:
            falling = index[:, 1:] <= index[:, :-1]
        else:
            falling = real[:, 1:] & (index[:, 1:] <= torch.where(real, index, -1).cummax(dim=1).values[:, :-1])
        wrong = wrong | falling.any()
    return replace(keep, index=within), wrong


def original_index(index: Tensor, keep: Selection) -> Tensor:
    """Place among the original tokens of each row that continues an arriving one, `(images, k)`; -1 for a row that has none.

    `index` are the places of what arrived, `(images, n)`.
    """
    if not keep.merged:
        return index.gather(1, keep.index)
    return index.gather(1, keep.index.clamp(min=0)).masked_fill_(keep.index < 0, -1)


def raise_if_invalid(wrong: bool, name: str) -> None:
    """Raise `UserError` for what `clamp_and_flag` found."""
    if wrong:
        what = "indices that are not among the tokens, or not ascending and unique, or rows of an impossible size"
        raise UserError(f"{name} chose {what}; see `vtpbench check`")
