"""The device that a model runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    import torch


def open_device(name: str | None) -> torch.device:
    """Find a device as torch names it, with its number; by default the first GPU, else the CPU."""
    import torch

    try:
        device = torch.empty(0, device=name or ("cuda:0" if torch.cuda.is_available() else "cpu")).device
    except (RuntimeError, AssertionError) as e:  # a CPU build asserts
        raise UserError(f"no device '{name}' here ({str(e).splitlines()[0]}); `vtpbench doctor` lists the devices") from e
    if device.type == "meta":
        raise UserError("device 'meta' holds no values; `vtpbench doctor` lists the devices")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # pinned memory belongs to the current one: eight runs would all take some of the first
    return device


class DeviceLost(UserError):
    """A GPU failed such that this process can run nothing on it any more."""


def refuse_lost(error: Exception) -> None:
    """Raise `DeviceLost` where an error is the device's own: whatever came next would fail, too, and bear the blame."""
    import torch

    if isinstance(error, torch.AcceleratorError):
        reason = str(error).partition("\n")[0]
        raise DeviceLost(f"the device failed ({reason}); what is finished is kept, run the same command again") from error
