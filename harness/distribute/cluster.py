"""Which workers a distributed run has, as the command line says it."""

from __future__ import annotations

from dataclasses import dataclass

from vtpbench.pruners.errors import UserError


@dataclass(frozen=True)
class ClusterOptions:
    """Which workers to have.

    Attributes
    ----------
    address : of a running Ray cluster, `auto` for the one of this machine; None starts one here
    gpus : how many, None = all there are, 0 = workers on the CPU
    workers : how many on the CPU
    gpu_kind : Ray's name of the accelerator type to use, such as `H100`; None = any

    """

    address: str | None = None
    gpus: int | None = 0
    workers: int = 0
    gpu_kind: str | None = None


def cluster_options(
    gpus: str | None, workers: int | None, ray: str | None, gpu_kind: str | None, device: str | None
) -> ClusterOptions | None:
    """Read which workers the command line wants; None for a run in this process. Raises `UserError` for what makes no sense."""
    if workers is not None:
        if device != "cpu" or gpus is not None or gpu_kind is not None:
            raise UserError("--workers N shares the processor: write --workers N --device cpu, or --gpus N for GPUs")
        return ClusterOptions(ray, workers=workers)
    if gpus is None and ray is None:
        if gpu_kind is not None:
            raise UserError("--gpu-kind chooses among the GPUs of --gpus or --ray: name one of these")
        return None
    if device is not None:
        raise UserError("--device names the device of a run in this process; without it, --gpus and --ray take whole GPUs")
    if gpus not in (None, "all") and not (gpus.isdecimal() and int(gpus) > 0):
        raise UserError(f"--gpus {gpus}: a whole number of GPUs, or all")
    return ClusterOptions(ray, None if gpus in (None, "all") else int(gpus), gpu_kind=gpu_kind)
