"""Clocks for work in stages: device events on a GPU, the host's counter on a CPU."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch

from vtpbench.pruners.errors import UserError


@dataclass(frozen=True)
class Lap:
    """Time that one stage took, or one part of it; milliseconds."""

    stage: str
    ms: float


class Timer(Protocol):
    """A clock that is started by making it; its laps lie end to end, so that they sum to the whole."""

    def mark(self, stage: str) -> None:
        """Say that what was done since the previous mark was `stage`."""
        ...

    def laps(self) -> tuple[Lap, ...]:
        """Stop, and list the laps in their order."""
        ...


class HostTimer:
    """For a device that has finished when the call returns."""

    def __init__(self) -> None:
        self._marks = [("", time.perf_counter())]

    def mark(self, stage: str) -> None:
        """Note the host's time as the end of `stage`."""
        self._marks.append((stage, time.perf_counter()))

    def laps(self) -> tuple[Lap, ...]:
        """Give the laps in their order, in milliseconds."""
        return tuple(Lap(stage, 1000 * (end - start)) for (_, start), (stage, end) in pairwise(self._marks))


class DeviceTimer:
    """For a GPU: events in its stream, which nobody waits for before the end.

    The device is idle when the first event is recorded, so that what the host does before it has work for the device is
    part of the first lap.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        torch.cuda.synchronize(device)
        self._marks = [("", self._event())]

    def mark(self, stage: str) -> None:
        """Put an event into the stream."""
        self._marks.append((stage, self._event()))

    def laps(self) -> tuple[Lap, ...]:
        """Wait for the device, and read the events."""
        torch.cuda.synchronize(self._device)
        return tuple(Lap(stage, float(start.elapsed_time(end))) for (_, start), (stage, end) in pairwise(self._marks))

    def _event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


def start_timer(device: torch.device) -> Timer:
    """Start the clock that fits a device; raises `UserError` where none does."""
    if device.type == "cuda":
        return DeviceTimer(device)
    if device.type == "cpu":
        return HostTimer()
    raise UserError(f"device {device} cannot be timed; use --device cpu, or a GPU as cuda:0")
