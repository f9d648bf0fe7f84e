"""Whether a device has room for a model's weights: asked before they are made, since a host that has not ends the process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    import torch

GIB = 2**30


def parameters(config: Any) -> int:
    """Count the parameters of a transformers model, from its configuration."""
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())


def free_bytes(device: torch.device) -> int:
    """Memory that a GPU, or the host, can still give away."""
    import psutil
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def require_room(name: str, config: Any, dtype: str, device: torch.device) -> None:
    """Raise `UserError` where the weights of a model alone are larger than what a device has left."""
    import torch

    needed = parameters(config) * getattr(torch, dtype).itemsize
    free = free_bytes(device)
    if needed <= free:
        return
    halved = needed / 2 if dtype == "float32" else None
    smaller = f"--dtype bfloat16 ({halved / GIB:.1f} GiB), " if halved is not None and halved <= free else ""
    raise UserError(
        f"model '{name}': its weights take {needed / GIB:.1f} GiB in {dtype}, and {device} has {free / GIB:.1f} GiB left; "
        f"use {smaller}a smaller model, a larger device, or --flops-only, which needs no weights"
    )
