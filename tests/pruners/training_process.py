"""Trains in a process of its own, as several tests need: CONFIG FEATURES FOLDER, then `until STEP` or `rank RANK`.

Not forked from pytest: torch refuses to differentiate in a fork of a process in which a GPU was named.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from vtpbench.pruners.oc_vtp.config import TrainConfig
from vtpbench.pruners.oc_vtp.features import FeatureStore
from vtpbench.pruners.oc_vtp.progress import LogRow
from vtpbench.pruners.oc_vtp.train import ProcessRank, train


def until(step: int, config: TrainConfig, store: FeatureStore, folder: Path) -> None:
    """Train until a step, then die as by kill -9."""

    def die(row: LogRow) -> None:
        if row.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    train(config, store, folder, on_row=die)


def rank(number: int, config: TrainConfig, store: FeatureStore, folder: Path) -> None:
    """Train as one of two processes."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=number, world_size=2)
    train(config, store, folder, ProcessRank(torch.device("cpu"), number, 2))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    config, features, folder, role, number = sys.argv[1:]
    {"until": until, "rank": rank}[role](
        int(number), TrainConfig.model_validate_json(config), FeatureStore(Path(features)), Path(folder)
    )
