"""Losses of OC-VTP's training: area-weighted mean squared error (AW-MSE) and the plain one.

Symbols: B images, S slots, N tokens, C feature width. `valid` `(B, N)` is False at filling.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Criterion = Literal["aw-code", "aw-paper", "mse"]
LARGEST_WEIGHT = 10.0
SMALLEST_AREA = 1e-8


def reconstruction_loss(
    reconstruction: Tensor, target: Tensor, attention: Tensor, criterion: Criterion, valid: Tensor | None = None
) -> Tensor:
    """Compare `(B, N, C)` tokens, weighted so that small segments count; a scalar, mean over images.

    Source: Li et al. (arXiv 2511.20439), AW-MSE. `aw-code` follows the authors' released code: weights are mixed softly by the
    attention, and a slot that owns no token takes the largest weight. `aw-paper` follows their text: hard segments and
    owned slots only (square root and cap as in the code).
    """
    error = (reconstruction.float() - target.float()).square().mean(-1)
    present = torch.ones_like(error) if valid is None else valid.to(error)
    weight = present if criterion == "mse" else token_weights(attention, criterion, valid) * present
    return ((weight * error).sum(-1) / weight.sum(-1)).mean()


def token_weights(attention: Tensor, criterion: Literal["aw-code", "aw-paper"], valid: Tensor | None = None) -> Tensor:
    """Weigh tokens by the inverse square root of their segment's area; attention `(B, S, N)` to `(B, N)`, no gradient."""
    attention = attention.detach().float()
    owner = attention.argmax(dim=1)
    owned = torch.nn.functional.one_hot(owner, attention.shape[1]).transpose(1, 2).to(attention)
    if valid is not None:
        owned = owned * valid[:, None]
    area = owned.sum(-1)
    weight = (area / area.sum(-1, keepdim=True)).clamp_min(SMALLEST_AREA).rsqrt()
    if criterion == "aw-code":
        weight = (weight / weight.mean(-1, keepdim=True)).clamp_max(LARGEST_WEIGHT)
        return torch.einsum("bsn,bs->bn", attention, weight)
    occupied = (area > 0).to(weight)
    mean = (weight * occupied).sum(-1, keepdim=True) / occupied.sum(-1, keepdim=True)
    return (weight / mean).clamp_max(LARGEST_WEIGHT).gather(1, owner)
