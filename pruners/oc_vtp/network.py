"""The network of OC-VTP: projection, slots from one shared Gaussian, slot attention.

Parameter names are those of the authors' published checkpoint. Symbols: B images, N tokens, C feature width, S slots,
D slot width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vtpbench.pruners.oc_vtp.dims import Dims

EPSILON = 1e-5
"""Added to a slot's attention mass before its mean is taken."""
CLUSTERING_GAIN, SMALL, KEEP_BIAS = 2.0, 0.1, -1.5
"""Of the start as clustering: sharpness, size of what should hardly act, and the GRU's bias towards what is new."""


class Mlp(nn.Module):
    """A sequence of layers under the published name `mlp`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.mlp = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers in order."""
        out: Tensor = self.mlp(x)
        return out


class SharedGaussian(nn.Module):
    """One learnt Gaussian from which every slot is drawn, so that any number of slots can be asked for.

    Without noise all slots would be equal and choose the same token, so noise is part of inference too.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, 1, width)))
        self.logstd = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, 1, width)))

    def forward(self, noise: Tensor) -> Tensor:
        """Turn standard normal noise `(..., S, D)` into initial slots `(B or 1, S, D)`."""
        return self.mean + self.logstd.exp() * noise


class SlotAttention(nn.Module):
    """Slots compete for tokens over a few rounds of attention, GRU and feed-forward, in one head.

    Source: Locatello et al., NeurIPS 2020; bi-level truncation of the gradient: Jia et al., ICLR 2023.
    """

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        width = dims.slots
        self.iterations = dims.iterations
        self.norm_in = nn.LayerNorm(width)
        self.proj_q = nn.Linear(width, width, bias=False)
        self.proj_k = nn.Linear(width, width, bias=False)
        self.proj_v = nn.Linear(width, width, bias=False)
        self.norm_slots_0 = nn.LayerNorm(width)
        self.norm_slots_1 = nn.LayerNorm(width)
        self.gru = nn.GRUCell(width, width)
        self.ffn = Mlp(nn.Linear(width, dims.ffn), nn.GELU(), nn.Dropout(0.01), nn.Linear(dims.ffn, width))

    def forward(self, tokens: Tensor, initial: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Bind tokens `(B, N, D)` to slots `(B, S, D)`; `valid` `(B, N)` is False at filling.

        Returns
        -------
        slots, attention : (B, S, D), (B, S, N); the last round's attention. Each token's column sums to 1 over the slots
            (0 at filling); a slot's row is not normalised.

        """
        tokens = self.norm_in(tokens)
        keys, values = self.proj_k(tokens), self.proj_v(tokens)
        slots, attention = initial, initial
        for i in range(self.iterations):
            if i == self.iterations - 1:  # the last round alone is differentiated, straight through to the initial slots
                slots = slots.detach() + (initial - initial.detach())
            attention = self._attend(slots, keys, valid)
            slots = self._update(slots, attention, values)
        return slots, attention

    def _attend(self, slots: Tensor, keys: Tensor, valid: Tensor | None) -> Tensor:
        logits: Tensor = self.proj_q(self.norm_slots_0(slots)) @ keys.transpose(1, 2) * slots.shape[-1] ** -0.5
        attention = logits.float().softmax(dim=1)  # over the slots: they compete for each token
        return attention if valid is None else attention * valid[:, None]

    def _update(self, slots: Tensor, attention: Tensor, values: Tensor) -> Tensor:
        means = attention / (attention.sum(-1, keepdim=True) + EPSILON) @ values.float()
        slots = self.gru(means.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
        refined: Tensor = slots + self.ffn(self.norm_slots_1(slots))
        return refined


def start_as_clustering(attention: SlotAttention) -> None:
    """Set first weights with which slot attention already is a soft k-means over the projected tokens.

    Queries and keys share an orthogonal projection, sharp enough that slots specialise; values are the tokens themselves,
    and the GRU and the feed-forward part hand them on nearly unchanged. From ordinary first weights attention is almost
    uniform: all slots become the same mean, and must learn to differ over some ten thousand steps.
    """
    width = attention.proj_q.in_features
    with torch.no_grad():
        projection = nn.init.orthogonal_(torch.empty(width, width), gain=CLUSTERING_GAIN)
        attention.proj_q.weight.copy_(projection)
        attention.proj_k.weight.copy_(projection)
        attention.proj_v.weight.copy_(torch.eye(width))
        gru, update = attention.gru, slice(width, 2 * width)
        gru.weight_ih.mul_(SMALL)
        gru.weight_hh.mul_(SMALL)
        gru.weight_ih[2 * width :] = torch.eye(width)
        gru.bias_ih[update] = KEEP_BIAS
        refine = attention.ffn.mlp[3]
        assert isinstance(refine, nn.Linear)
        refine.weight.mul_(SMALL)


class OCPruner(nn.Module):
    """The part of OC-VTP that inference needs; 7,616,512 parameters at the published widths.

    There is no positional embedding: permuting the tokens permutes the columns of the attention.

    Source: Li et al., "Object-Centric Vision Token Pruning for Vision Language Models" (arXiv 2511.20439); layer
    details from the authors' code.
    """

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.encode_project = Mlp(
            nn.LayerNorm(dims.features),
            nn.Linear(dims.features, dims.hidden),
            nn.GELU(),
            nn.Dropout(0.0),
            nn.Linear(dims.hidden, dims.slots),
        )
        self.initializ = SharedGaussian(dims.slots)
        self.aggregat = SlotAttention(dims)
        for name, parameter in self.named_parameters():
            if ".bias" in name:
                nn.init.zeros_(parameter)

    def bind(self, features: Tensor, noise: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Assign features `(B, N, C)` to the slots that `noise`, `(S, D)` or `(B, S, D)`, draws; see `SlotAttention`."""
        slots = self.initializ(noise).expand(features.shape[0], -1, -1)
        bound: tuple[Tensor, Tensor] = self.aggregat(self.encode_project(features), slots, valid)
        return bound
