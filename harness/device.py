"""The device that a model runs on."""

from __future__ import annotations

from vtpbench.pruners.errors import UserError


class DeviceLost(UserError):
    """A GPU failed such that this process can run nothing on it any more."""


def refuse_lost(error: Exception) -> None:
    """Raise `DeviceLost` where an error is the device's own: whatever came next would fail, too, and bear the blame."""
    import torch

    if isinstance(error, torch.AcceleratorError):
        reason = str(error).partition("\n")[0]
        raise DeviceLost(f"the device failed ({reason}); what is finished is kept, run the same command again") from error
