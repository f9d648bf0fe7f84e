"""Bring what was made on the host to the device without waiting for it, and back what the host must know."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


STAGED_BYTES = 1 << 16
"""Up to this size CUDA takes a copy of ordinary host memory at once; above, it waits unless the memory is pinned."""


def copy_to_device(made: Tensor, device: torch.device) -> Tensor:
    """Copy to a device; on CUDA the host goes on at once, and what is launched later finds the copy there."""
    kept = _KEPT.get()
    return _copied(made, device) if kept is None else kept.copy(made, device)


def _copied(made: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda" and made.numel() * made.element_size() > STAGED_BYTES:
        made = made.pin_memory()
    return made.to(device, non_blocking=True)


class KeptCopies:
    """What a computation brings to a device, kept there, so that it can be done again without the host.

    A CUDA graph must find such copies where they were when it was captured, for as long as it is replayed; in one that finds
    them on the device there is no copy from the host, and no memory of the host that would have to be pinned and kept.
    """

    def __init__(self) -> None:
        self._made: list[tuple[Tensor, Tensor]] = []
        self._complete = False

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Keep every copy that is made inside the context."""
        with self._in_force():
            yield
        self._complete = True

    @contextmanager
    def repeated(self) -> Iterator[None]:
        """Give what was recorded instead of copies; nothing else may be asked for."""
        with self._in_force():
            yield

    def copy(self, made: Tensor, device: torch.device) -> Tensor:
        """Copy, or give a copy of what was recorded: whoever asks may write into it."""
        if not self._complete:
            self._made.append((made, _copied(made, device)))
            return self._made[-1][1].clone()
        for source, there in self._made:
            if source.dtype == made.dtype and torch.equal(source, made):
                return there.clone()
        raise RuntimeError("what is brought to the device differs from run to run")

    @contextmanager
    def _in_force(self) -> Iterator[None]:
        token = _KEPT.set(self)
        try:
            yield
        finally:
            _KEPT.reset(token)


_KEPT: ContextVar[KeptCopies | None] = ContextVar("kept copies", default=None)
"""Of this thread: what is captured is computed by one, while others read pictures."""


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
