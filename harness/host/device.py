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


def refuse_failed(device: torch.device) -> None:
    """Raise `torch.AcceleratorError` where a GPU has failed earlier: it does so at whatever is asked of it next."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


class DeviceLost(UserError):
    """A GPU failed such that this process can run nothing on it any more."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device had too little memory, in the words of torch's allocator or of the driver."""
    import torch

    says_so = isinstance(error, torch.AcceleratorError) and "out of memory" in str(error)
    return says_so or isinstance(error, torch.OutOfMemoryError)


def refuse_lost(error: BaseException, at: object, around: str) -> None:
    """Raise `DeviceLost` where an error is the device's own: whatever came next would fail, too, and bear the blame.

    Parameters
    ----------
    error : what came up
    at : what was being measured, to be named
    around : how to go on without it, should it be the cause

    """
    import torch

    if isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error):
        reason = str(error).partition("\n")[0]
        again = f"run the same command again, and if it fails there again, {around}"
        raise DeviceLost(f"the device failed ({reason}) at {at}; what is finished is kept: {again}") from error
