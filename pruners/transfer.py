"""Bring what was made on the host to the device without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor

STAGED_BYTES = 1 << 16
"""Up to this size CUDA takes a copy of ordinary host memory at once; above, it waits unless the memory is pinned."""


def copy_to_device(made: Tensor, device: torch.device) -> Tensor:
    """Copy to a device; on CUDA the host goes on at once, and what is launched later finds the copy there."""
    if device.type == "cuda" and made.numel() * made.element_size() > STAGED_BYTES:
        made = made.pin_memory()
    return made.to(device, non_blocking=True)
