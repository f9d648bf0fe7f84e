"""Names for images that come without one: what the tower gets of them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import torch

from vtpbench.harness.pruning.batch import ImageGroup
from vtpbench.harness.pruning.model import VisionLanguageModel


def content_keys(model: VisionLanguageModel, groups: Sequence[ImageGroup]) -> list[str]:
    """Name each image of some groups after its pixels, in the number format of the tower: 16 hexadecimal digits.

    An image has the same name alone and in a batch, and whoever has preprocessed it, as long as the pixels are equal.
    """
    found: dict[int, str] = {}
    for group in groups:
        pixels = model.pixels(group).to(model.model.dtype).cpu()
        for member, own in zip(group.members, pixels, strict=True):
            found[member] = sha256(own.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]
    return [found[member] for member in sorted(found)]
