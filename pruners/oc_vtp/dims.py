"""The widths of OC-VTP's network, known from a checkpoint without reading its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Dims:
    """Widths of the network; the defaults are the published ones for CLIP ViT-L/14-336."""

    features: int = 1024
    hidden: int = 2048
    slots: int = 512
    ffn: int = 2048
    iterations: int = 3

    @classmethod
    def of(cls, shapes: Mapping[str, Sequence[int]], iterations: int) -> Dims:
        """Read the widths off the shapes of a state dict; the number of iterations leaves no trace there."""
        hidden, features = shapes["encode_project.mlp.1.weight"]
        ffn, slots = shapes["aggregat.ffn.mlp.0.weight"]
        return cls(features, hidden, slots, ffn, iterations)
