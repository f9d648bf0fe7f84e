"""Bring what was made on the host to the device without waiting for it, and back what the host must know."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


STAGED_BYTES = 1 << 16
"""Up to this size CUDA takes a copy of ordinary host memory at once; above, it waits unless the memory is pinned."""


def copy_to_device(made: Tensor, device: torch.device) -> Tensor:
    """Copy to a device; on CUDA the host goes on at once, and what is launched later finds the copy there."""
    if device.type == "cuda" and made.numel() * made.element_size() > STAGED_BYTES:
        made = made.pin_memory()
    return made.to(device, non_blocking=True)


class DelayedFlag:
    """Learns that something has become true on a device, some looks late, so that the host need not wait for each of them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._coming: deque[tuple[Tensor, torch.cuda.Event]] = deque()

    def seen(self, flag: Tensor, late: int) -> bool:
        """Copy a scalar bool to the host; gives what it was `late` calls ago, and on a CPU what it is.

        Waits for the device to arrive where it was then, and gives False where there were no such calls yet.
        """
        if self.device.type != "cuda":
            return bool(flag)
        held = torch.zeros((), dtype=torch.bool).pin_memory()
        held.copy_(flag, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self._coming.append((held, arrived))
        found = False
        while len(self._coming) > late:
            held, arrived = self._coming.popleft()
            arrived.synchronize()
            found = bool(held)
        return found
