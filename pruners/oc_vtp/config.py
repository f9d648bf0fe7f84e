"""Options of OC-VTP's training, and what follows from them by arithmetic alone."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from vtpbench.pruners.oc_vtp.decoder import DecoderDims
from vtpbench.pruners.oc_vtp.dims import Dims
from vtpbench.pruners.oc_vtp.loss import Criterion

REFERENCE_TOKENS = 576
REFERENCE_SLOTS = (32, 64, 128, 192)


class TrainConfig(BaseModel):
    """A training run; the defaults are the published sizes and optimiser for 40,000 images.

    Departures from the authors' script: the learning rate moves every step, not once an epoch after its first batch;
    192 is among the slot counts, being a reported budget; validation decodes held-out images under masks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layer: int | None = None
    """Module index of the vision layer that gives the features, negative from the end; None = at 9/24 of the depth."""
    geometry: Literal["squash", "pad"] = "squash"
    """How images become square: stretched as in the authors' script, or left to the model as in its evaluation."""

    enc_hidden: PositiveInt = 2048
    slot_dim: PositiveInt = 512
    agg_ffn: PositiveInt = 2048
    iterations: PositiveInt = 3
    decoder_layers: PositiveInt = 4
    decoder_heads: PositiveInt = 4
    decoder_ffn: PositiveInt = 4096

    start: Literal["ordinary", "clustering"] = "ordinary"
    """First weights of slot attention: as the authors', or such that it is a soft k-means before any training."""
    standardise: bool = False
    """Rebuild every feature channel in units of its deviation, so that a few large channels do not make up the loss."""

    loss: Criterion = "aw-code"
    """AW-MSE as in the authors' code or paper, or plain MSE."""
    slots: tuple[PositiveInt, ...] | None = None
    """Slot counts to sample from, one per step; None = 32, 64, 128, 192 of 576 tokens, in proportion elsewhere."""
    prefix: int | None = Field(default=24, ge=0)
    """Tokens shown to the decoder in half of the draws; None = a tenth of the image's, less one."""

    batch: PositiveInt = 12
    """Images per step, over all devices."""
    steps: PositiveInt = 95_000
    warmup: int = Field(default=12_667, ge=0)
    """Steps of linear warm-up."""
    lr: float = Field(default=1e-3, gt=0)
    lr_start: float = Field(default=1e-6, ge=0)
    lr_end: float = Field(default=1e-8, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    amp: bool = False
    """Compute in bfloat16 on a GPU; the authors trained in float32."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of a moving average of the weights, which is then validated and saved."""

    validation_images: PositiveInt = 256
    validate_every: PositiveInt = 1000
    """Steps; the state to resume from is written as often."""
    patience: PositiveInt | None = None
    """Stop after so many validations without a better one."""
    log_every: PositiveInt = 50
    """Steps."""
    seed: int = 0

    def dims(self, width: int) -> Dims:
        """Sizes of the network for features of a width."""
        return Dims(width, self.enc_hidden, self.slot_dim, self.agg_ffn, self.iterations)

    def decoder(self, tokens: int | None) -> DecoderDims:
        """Sizes of the decoder; None where images differ in their number of tokens."""
        return DecoderDims(tokens, self.decoder_layers, self.decoder_heads, self.decoder_ffn, self.standardise)

    def slot_counts(self, tokens: float) -> tuple[int, ...]:
        """Slot counts to sample from, for images of (on average) so many tokens."""
        if self.slots is not None:
            return self.slots
        return tuple(sorted({max(1, round(count * tokens / REFERENCE_TOKENS)) for count in REFERENCE_SLOTS}))

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, from 0: linear warm-up, then the rest of a cosine that began at step 0."""
        if step < self.warmup:
            return self.lr_start + (self.lr - self.lr_start) * step / self.warmup
        return self.lr_end + (self.lr - self.lr_end) * (1 + math.cos(math.pi * step / self.steps)) / 2
