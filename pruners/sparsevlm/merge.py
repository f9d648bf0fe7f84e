"""Merging of recycled tokens: density-peak clustering, then plain means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtpbench.pruners.base import rank, take
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def merge_clusters(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Replace tokens by cluster means.

    Parameters
    ----------
    x : (images, t, dim)
    count : clusters, at most t

    Returns
    -------
    The means, `(images, count, dim)`, and each cluster's centre, `(images, count)` places in x; both best centre first.

    """
    centres, members = cluster(x, count)
    weights = (members[..., None] == torch.arange(count, device=x.device)).to(x.dtype)
    return weights.mT @ x / weights.sum(dim=1)[..., None], centres


def cluster(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find centres, `(images, count)`, and each token's cluster, `(images, t)`: that of the nearest centre."""
    # without matrix products the distances are symmetric and those to self are 0, so that ties are real ties
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") / x.shape[-1] ** 0.5
    density, separation = peaks(distance, count)
    centres = rank(density * separation)[:, :count]
    members = rank(-take(distance, centres).mT)[..., 0]
    own = torch.arange(count, device=x.device).expand_as(centres)
    return centres, members.scatter(1, centres, own)


def peaks(distance: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    """Density of each token and its distance to the nearest denser one, the largest distance of all where there is none.

    Density = exp(-mean squared distance to the nearest `neighbours`, itself included). Among equals the lower index is
    the denser; the authors add unseeded noise instead.

    Parameters
    ----------
    distance : (images, t, t)

    Returns
    -------
    Two tensors (images, t)

    """
    nearest = distance.topk(neighbours, dim=-1, largest=False).values
    density = (-nearest.square().mean(dim=-1)).exp()
    place = rank(density).argsort(dim=-1)
    denser = place[:, None, :] < place[:, :, None]
    separation = distance.masked_fill(~denser, float("inf")).amin(dim=-1)
    return density, torch.where(denser.any(dim=-1), separation, distance.amax(dim=(1, 2))[:, None])
