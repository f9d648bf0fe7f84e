"""The batch size that a suite leaves open: as many questions as a kind of GPU has memory for.

It is a part of every cell's identity, so that it must not depend on what else a GPU is doing, nor on which cells are left: it
follows from the memory that the kind of GPU has, from the models' sizes and from their unpruned prompts alone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from vtpbench.harness.efficiency.flops import Workload
from vtpbench.harness.efficiency.gpu_memory import NUMBER_BYTES, GpuMemory
from vtpbench.harness.efficiency.gpus import gpu_table
from vtpbench.harness.models.described_sizes import dimensions_of
from vtpbench.harness.run.forecast import supposed_grid
from vtpbench.pruners.errors import Unsupported, UserError

if TYPE_CHECKING:
    import torch

    from vtpbench.harness.models.load import Described

WINDOW = 4
"""Batches whose pictures are encoded together."""
SIZES = (128, 96, 64, 48, 32, 24, 16, 12, 8, 6, 4, 2, 1)
"""The more there are, the more prompts share the reading of the weights in each step; nothing above 64 was measured."""
SHARE = 0.8
"""Of the memory; the rest is for what pruners compute, for long questions, and for what the allocator leaves between."""
TEXT = 60
"""Tokens of a prompt beside its image."""
ROOM = 128
"""Tokens of an answer for which there is room; longer answers, as larger pictures, halve their batch by themselves."""


def gpu_bytes(device: torch.device) -> float | None:
    """Memory of a GPU, by its data sheet where the kind is known; None for a processor."""
    import torch

    if device.type != "cuda":
        return None
    properties = torch.cuda.get_device_properties(device)
    kind = next((gpu for gpu in gpu_table().gpus if gpu.reported == properties.name), None)
    return float(properties.total_memory) if kind is None else kind.gb * 1e9


def fitting_batch_size(models: Collection[Described], memory: float, *, graphs: bool) -> int:
    """Find the largest batch of unpruned prompts for which all of the models have room; 1 where none has.

    Parameters
    ----------
    models : of a suite, all of them
    memory : of the GPU, bytes
    graphs : whether the suite asks for graphs, which take memory of their own

    """
    needed = {size: max(peak_bytes(model, size, graphs=graphs) for model in models) for size in SIZES}
    return max((size for size, peak in needed.items() if peak <= SHARE * memory), default=1)


def peak_bytes(model: Described, size: int, *, graphs: bool) -> float:
    """Bytes that a batch of unpruned prompts needs of a GPU, each with a picture of its own."""
    grid = supposed_grid(model.info, model.shape)
    work = Workload(grid, (float(grid.n),) * model.shape.decoder_layers, TEXT, ROOM)
    try:
        dimensions = dimensions_of(model)
    except (UserError, Unsupported) as e:
        raise UserError(f"model '{model.info.label}': no batch size can be fitted to a GPU, {e}; give batch_size a number") from e
    memory = GpuMemory(dimensions, NUMBER_BYTES[model.info.dtype], model.info.attention == "eager", graphs)
    return memory.at_peak(work, size, WINDOW * size)
