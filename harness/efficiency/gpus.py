"""What GPUs can do, by their data sheets and by measurement: the table in `gpus.yaml`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import Field

from vtpbench.harness.host.files import read_text
from vtpbench.harness.suite.strict_yaml import Document, Strict
from vtpbench.pruners.errors import UserError, did_you_mean


class Gpu(Strict):
    """One kind of GPU, as its vendor states it."""

    name: str
    title: str
    tflops: float = Field(gt=0)
    """Dense 16-bit products a second, 1e12."""
    tb_per_s: float = Field(gt=0)
    """Memory bandwidth, 1e12 bytes a second."""
    gb: float = Field(gt=0)
    """Memory, 1e9 bytes."""
    reported: str
    """Name that its driver gives, and torch."""


class Reached(Strict):
    """How much of a data sheet was reached, and what the host needs beside."""

    gpu: str
    """Kind of GPU on which it was measured."""
    products: float = Field(gt=0, le=1)
    tower: float = Field(gt=0, le=1)
    weights: float = Field(gt=0, le=1)
    step_cache: float = Field(gt=0, le=1)
    prefix_cache: float = Field(gt=0, le=1)
    launch_ms: float = Field(gt=0)
    picture_ms: float = Field(gt=0)


class GpuTable(Strict):
    """The whole file."""

    gpus: list[Gpu]
    measured: Reached


@cache
def gpu_table() -> GpuTable:
    """Read the table that comes with vtpbench."""
    path = Path(__file__).with_name("gpus.yaml")
    return Document(read_text(path), path.name).validate(GpuTable, {})


def find_gpu(name: str) -> Gpu:
    """Look a kind of GPU up; raises `UserError` with those that are known."""
    known = {gpu.name: gpu for gpu in gpu_table().gpus}
    if name.lower() not in known:
        raise UserError(f"--gpu {name}: {did_you_mean(name.lower(), known)}")
    return known[name.lower()]
