"""Who rates the vision tokens, and how: SparseVLM's text raters, and the corrections of its version 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtpbench.pruners.base import take, top
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def pick_raters(vision: Tensor, text: Tensor, real: Tensor) -> Tensor:
    """Pick the text tokens that concern the image more than the average text token does.

    Relevance = softmax over the text of the raw dot products, mean over vision tokens; where no token exceeds the average,
    all of the text rates.

    Parameters
    ----------
    vision, text : (images, n, dim), (images, text, dim); input embeddings
    real : (images, text) bool; False marks filling

    Returns
    -------
    (images, text) bool

    """
    logits = (vision @ text.mT).masked_fill(~real[:, None], float("-inf"))
    relevance = logits.softmax(dim=-1).mean(dim=1)
    chosen = real & (relevance > 1 / real.sum(dim=-1, keepdim=True))
    return torch.where(chosen.any(dim=-1, keepdim=True), chosen, real)


def rate(attention: Tensor, raters: Tensor) -> Tensor:
    """Mean attention over heads, then raters: `(images, heads, text, n)`, `(images, text)` bool to `(images, n)`."""
    rows = attention.mean(dim=1).masked_fill(~raters[..., None], 0)
    return rows.sum(dim=1) / raters.sum(dim=-1, keepdim=True)


def rate_corrected(attention: Tensor, raters: Tensor, decay: Tensor, heads: int) -> Tensor:
    """Rate by attention / decay, in the `heads` heads whose raters then look at the image most; each image its own."""
    corrected = (attention / decay[:, None]).masked_fill(~raters[:, None, :, None], 0)
    return rate(take(corrected, top(corrected.sum(dim=(2, 3)), heads)), raters)


def rotary_decay(query: Tensor, key: Tensor) -> Tensor:
    """Rotary decay with distance, mean over frequencies of cos(query angle - key angle): 1 at distance 0, for all heads the same.

    The authors' G, the scaled product of rotated all-ones vectors, is this times sqrt(head_dim), which changes no ranking.
    Where positions have several axes, each frequency turns with its own.

    Parameters
    ----------
    query, key : (images, text, head_dim), (images, n, head_dim); cosines, then sines, of the angles

    Returns
    -------
    (images, text, n)

    """
    return query @ key.mT / (query.shape[-1] // 2)  # cos(a - b) = cos a cos b + sin a sin b
