"""The decoder of OC-VTP's training: it rebuilds all tokens from the slots and a random prefix of the tokens.

"Random auto-regressive" means masked prediction in a random order: tokens are permuted, all but a prefix are masked,
and bidirectional Transformer layers that read the slots predict every token. Parameter names are those of the authors'
published checkpoint. Symbols: B images, N tokens, C feature width.

Source: Zhao et al., "Slot Attention with Re-Initialization and Self-Distillation" (arXiv 2507.23755), random
auto-regressive decoding, as used by Li et al., OC-VTP (arXiv 2511.20439); layer details from the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vtpbench.pruners.oc_vtp.dims import Dims
from vtpbench.pruners.oc_vtp.network import OCPruner


@dataclass(frozen=True)
class DecoderDims:
    """Size of the decoder; its width is that of the features."""

    tokens: int | None = 576
    """Tokens of every image, with a learnt position each; None = sinusoidal positions, for images that differ in size."""
    layers: int = 4
    heads: int = 4
    ffn: int = 4096
    standardise: bool = False
    """Rebuild every feature channel in units of its own deviation; the authors rebuild raw features."""


@dataclass(frozen=True)
class Masking:
    """What the decoder sees.

    Attributes
    ----------
    order : (B, N) int64 permutation of each image's tokens, filling last
    prefix : (B, 1) int64; how many tokens of that order are shown

    """

    order: Tensor
    prefix: Tensor

    def to(self, device: torch.device) -> Masking:
        """Give a copy with both tensors on a device."""
        return Masking(self.order.to(device), self.prefix.to(device))


def draw_masking(present: Tensor, fixed_prefix: int | None, generator: torch.Generator) -> Masking:
    """Draw a random order per image, and a prefix: half of the time uniform in 0..n-2, else `fixed_prefix`.

    `fixed_prefix` None means a tenth of the image's tokens, less one; the authors' code has 24 at any token count.
    `present` `(B, N)` is False at filling. At least one token is always masked.
    """
    lengths = present.sum(-1, keepdim=True)
    order = (torch.rand(present.shape, generator=generator) + ~present).argsort(-1)
    coin, place = torch.rand(2, len(present), 1, generator=generator)
    uniform = (place * (lengths - 1)).long()
    fixed = (lengths // 10 - 1).clamp_min(0) if fixed_prefix is None else torch.full_like(lengths, fixed_prefix)
    return Masking(order, torch.where(coin < 0.5, uniform, fixed).minimum(lengths - 1))


class LearntPositions(nn.Module):
    """One learnt vector per token."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self._pe = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, tokens, width)))

    def forward(self, places: Tensor) -> Tensor:
        """Return the table for `places` `(B, N, 2)`, whose values do not matter."""
        return self._pe.expand(places.shape[0], -1, -1)


class SinusoidalPositions(nn.Module):
    """Sines and cosines of a token's row and column, a quarter of the width each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        if width % 4:
            raise ValueError(f"sinusoidal positions need a feature width divisible by 4, not {width}")
        self.width = width

    def forward(self, places: Tensor) -> Tensor:
        """Encode rows and columns `(B, N, 2)` as `(B, N, C)`."""
        steps = self.width // 4
        frequency = 1e4 ** (-torch.arange(steps, device=places.device, dtype=torch.float32) / steps)
        angle = (places.float()[..., None] * frequency).flatten(-2)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class Projection(nn.Module):
    """Linear map without bias, then LayerNorm."""

    def __init__(self, into: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(into, width, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Project and normalise."""
        out: Tensor = self.norm(self.project(x))
        return out


class SlotDecoder(nn.Module):
    """Random-prefix masked Transformer decoder; 69,288,960 parameters at the published sizes."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, dims: Dims, size: DecoderDims) -> None:
        super().__init__()
        width = dims.features
        self.mask_token = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.posit_embed = SinusoidalPositions(width) if size.tokens is None else LearntPositions(size.tokens, width)
        self.project1 = Projection(width, width)
        self.project2 = Projection(dims.slots, width)
        layer = nn.TransformerDecoderLayer(
            width, size.heads, size.ffn, dropout=0.0, activation="gelu", batch_first=True, norm_first=True, bias=False
        )
        self.backbone = nn.TransformerDecoder(layer, size.layers)  # deep copies: all layers start from equal weights
        self.norm0 = nn.LayerNorm(width, bias=False)  # the first layer's norm1, applied to the residual stream itself
        self.backbone.layers[0].norm1 = nn.Identity()
        self.standardises = size.standardise
        if size.standardise:
            self.register_buffer("mean", torch.zeros(width))
            self.register_buffer("deviation", torch.ones(width))

    def target(self, features: Tensor) -> Tensor:
        """Turn features `(B, N, C)` into what is to be rebuilt: themselves, or standardised channels."""
        return (features - self.mean) / self.deviation if self.standardises else features

    def forward(self, features: Tensor, slots: Tensor, masking: Masking, valid: Tensor | None, places: Tensor) -> Tensor:
        """Rebuild the `target` of features `(B, N, C)` from slots `(B, S, D)`; `places` `(B, N, 2)` are rows and columns."""
        hidden = torch.arange(features.shape[1], device=features.device) >= masking.prefix
        tokens = _permute(self.project1(self.target(features)), masking.order)
        tokens = torch.where(hidden[..., None], self.mask_token, tokens)
        query = self.norm0(tokens + _permute(self.posit_embed(places), masking.order))
        filling = None if valid is None else ~valid.gather(1, masking.order)
        out = self.backbone(query, self.project2(slots), tgt_key_padding_mask=filling)
        return _permute(out, masking.order.argsort(-1))


class Reconstructor(OCPruner):
    """Pruner and decoder under one roof, as they are trained; the state dict has the published layout."""

    def __init__(self, dims: Dims, size: DecoderDims) -> None:
        super().__init__(dims)
        self.decode = SlotDecoder(dims, size)

    def forward(
        self, features: Tensor, noise: Tensor, masking: Masking, valid: Tensor | None, places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Rebuild what `decode.target` makes of features `(B, N, C)`; also returns the attention `(B, S, N)`."""
        slots, attention = self.bind(features, noise, valid)
        return self.decode(features, slots, masking, valid, places), attention


def _permute(x: Tensor, order: Tensor) -> Tensor:
    return x.gather(1, order[..., None].expand_as(x))
