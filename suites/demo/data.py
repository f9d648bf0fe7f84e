"""Training pictures of the demo model, painted once by all cores and kept in memory as bytes."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vtpbench.suites.demo.scenes import Scene, render, sample_scene
from vtpbench.suites.demo.tower import DenseTargets, dense_targets

MEAN = (0.48145466, 0.4578275, 0.40821073)
"""CLIP's channel means, of values 0-1."""
STD = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's channel deviations."""
SPLITS = {"train": 0, "heldout": 1, "benchmark": 2, "calibration": 3}
"""First component of a scene's seed: scenes of different splits never meet."""


@dataclass(frozen=True)
class ScenePictures:
    """Scenes with their pixels `(n, SIZE, SIZE, 3)` uint8 and dense targets."""

    scenes: list[Scene]
    pixels: np.ndarray
    targets: DenseTargets

    def batch(self, rows: np.ndarray, device: torch.device) -> tuple[Tensor, DenseTargets]:
        """Normalised pixels `(b, 3, SIZE, SIZE)` and targets of some scenes."""
        index = torch.from_numpy(rows)
        picked = self.targets[index]
        targets = DenseTargets(*(t.to(device) for t in (picked.kind, picked.colour, picked.size, picked.present)))
        return normalise(self.pixels[rows]).to(device), targets


def normalise(pixels: np.ndarray) -> Tensor:
    """Bytes `(b, h, w, 3)` to CLIP's input `(b, 3, h, w)`."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def _paint(seed: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    image, owner = render(sample_scene(seed))
    return np.asarray(image), owner.astype(np.int8)


def load_pictures(split: str, n: int, seed: int, cache: Path) -> ScenePictures:
    """Paint `n` scenes of a split, or read them from `cache` where an earlier stage has left them."""
    seeds = [(SPLITS[split], seed, i) for i in range(n)]
    file = cache / f"{split}-{seed}-{n}.npz"
    if not file.exists():
        with get_context("fork").Pool() as pool:
            painted = pool.map(_paint, seeds, chunksize=256)
        np.savez(file, pixels=np.stack([p for p, _ in painted]), owners=np.stack([o for _, o in painted]))
    stored = np.load(file)
    scenes = [sample_scene(s) for s in seeds]
    return ScenePictures(scenes, stored["pixels"], dense_targets(scenes, stored["owners"]))
