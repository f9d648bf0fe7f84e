"""Pixels do not depend on the threads that make them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vtpbench.harness.models import family as families
from vtpbench.harness.models.family import Family
from vtpbench.harness.models.tiny import TINY

SIZES = [(40, 30), (64, 20), (40, 30), (16, 16), (90, 33), (31, 64), (8, 8)]


def pictures() -> list[Image.Image]:
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8)) for width, height in SIZES]


def pixels(family: Family, images: list[Image.Image]) -> list[tuple[tuple[int, ...], Any, torch.Tensor]]:
    return [(group.members, group.grid, family.pixels(group)) for group in family.group(images)]


@pytest.mark.parametrize("count", [2, 3, 64])
@pytest.mark.parametrize("kind", list(TINY))
def test_any_number_of_threads_makes_the_same_pixels(monkeypatch: pytest.MonkeyPatch, kind: str, count: int) -> None:
    family, images = TINY[kind](), pictures()
    monkeypatch.setattr(families, "threads_beside", lambda device: 1)
    alone = pixels(family, images)
    monkeypatch.setattr(families, "threads_beside", lambda device: count)
    for _ in range(3):
        together = pixels(family, images)
        assert [(members, grid) for members, grid, _ in together] == [(members, grid) for members, grid, _ in alone]
        assert all(torch.equal(own, expected) for (_, _, own), (_, _, expected) in zip(together, alone, strict=True))


@pytest.mark.parametrize("preprocessing", ["pad", "crop"])
def test_so_it_is_with_either_preprocessing_of_llava(monkeypatch: pytest.MonkeyPatch, preprocessing: str) -> None:
    family, images = TINY["llava"](), pictures()
    family.preprocessing = preprocessing  # type: ignore[attr-defined]
    monkeypatch.setattr(families, "threads_beside", lambda device: 1)
    ((_, _, alone),) = pixels(family, images)
    monkeypatch.setattr(families, "threads_beside", lambda device: 4)
    ((_, _, together),) = pixels(family, images)
    assert torch.equal(alone, together)


def tasks() -> int:
    """Threads of this process, of torch's kernels too."""
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads of libraries are counted as Linux shows them")
@pytest.mark.parametrize("kind", list(TINY))
def test_who_reads_pictures_starts_no_threads_of_torch(kind: str) -> None:
    """They wait for work without sleeping, and take a processor from the model: its answers took a sixth longer."""
    family, images, threads = TINY[kind](), pictures() * 20, torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(1) as reader:
            reader.submit(int).result()
            before = tasks()
            during = reader.submit(lambda: (pixels(family, images), tasks())[1]).result()
    finally:
        torch.set_num_threads(threads)
    assert during == before
