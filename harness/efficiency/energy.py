"""Energy that a GPU takes, as its driver counts it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

LASTS = 2.0
"""Seconds that the work is repeated for: some drivers add to their count only ten times a second."""


class EnergyMeter:
    """A GPU's own count of the energy that it took since its driver was loaded, of the whole board."""

    def __init__(self, nvml: Any, handle: Any, device: torch.device) -> None:
        self._nvml, self._handle, self._device = nvml, handle, device

    def joules(self, work: Callable[[], object]) -> float:
        """Energy that some work takes once: mean over as many times as fit into `LASTS`."""
        torch.cuda.synchronize(self._device)
        before, end, times = self._millijoules(), time.perf_counter() + LASTS, 0
        while time.perf_counter() < end:
            work()
            torch.cuda.synchronize(self._device)
            times += 1
        return (self._millijoules() - before) / times / 1000

    def _millijoules(self) -> int:
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))


def open_meter(device: torch.device) -> EnergyMeter | None:
    """Open the meter of a device; None where there is none: a CPU, a part of a GPU, a driver or a board that does not count."""
    if device.type != "cuda":
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None
    return EnergyMeter(pynvml, handle, device)
