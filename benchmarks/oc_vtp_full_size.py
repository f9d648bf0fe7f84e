"""Memory of OC-VTP's training at the published sizes: LLaVA-1.5's 576 tokens of width 1024, batches of 12.

Writes random features to a temporary folder, in place of what `vtpbench train oc-vtp` extracts, and takes a few steps with
the default configuration: 7.6 million parameters of the pruner, 69 million of the decoder.

    python benchmarks/oc_vtp_full_size.py
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from vtpbench.pruners.base import Grid
from vtpbench.pruners.oc_vtp.config import TrainConfig
from vtpbench.pruners.oc_vtp.features import FeatureMeta, ImageFeatures, extract
from vtpbench.pruners.oc_vtp.progress import LogRow
from vtpbench.pruners.oc_vtp.train import ProcessRank, train

SIDE, WIDTH, LAYER = 24, 1024, 8


@dataclass(frozen=True)
class Noise:
    """Random features of so many images."""

    images: int

    @property
    def meta(self) -> FeatureMeta:
        """Say that no model made them."""
        return FeatureMeta("random features", None, LAYER, WIDTH, "squash")

    def keys(self) -> Sequence[str]:
        """Name the images."""
        return [f"{number:016x}" for number in range(self.images)]

    def features(self, keys: Sequence[str]) -> Iterator[ImageFeatures]:
        """Draw each image's features by its name."""
        for key in keys:
            generator = torch.Generator().manual_seed(int(key, 16))
            yield ImageFeatures(key, Grid(1, SIDE, SIDE), torch.randn(SIDE**2, WIDTH, generator=generator))


def main() -> None:
    """Train a few steps and print time and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    device, start = torch.device(arguments.device), time.perf_counter()
    config = TrainConfig(steps=arguments.steps, warmup=1, validation_images=TrainConfig().batch, log_every=1)

    def said(row: LogRow) -> None:
        print(f"{time.perf_counter() - start:6.1f} s  step {row.step}  slots {row.slots}  loss {row.loss}", flush=True)

    with TemporaryDirectory() as folder:
        store = extract(Noise(4 * config.batch), Path(folder, "features"))
        train(config, store, Path(folder, "run"), ProcessRank(device), said)
    print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    if device.type == "cuda":
        print(f"peak memory of the GPU: {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
