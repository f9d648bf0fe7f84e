"""Write training pictures of the demo as files: `python -m vtpbench.suites.demo.pictures --n 4000 --out DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path

from vtpbench.suites.demo.data import SPLITS
from vtpbench.suites.demo.scenes import render, sample_scene


def write_pictures(folder: Path, n: int, seed: int = 0) -> None:
    """Paint the first `n` training scenes of a seed as PNG; equal arguments give equal files."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        picture, _ = render(sample_scene((SPLITS["train"], seed, i)))
        picture.save(folder / f"{i:05d}.png")


def main() -> None:
    """Parse the command line and paint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=4000, help="how many pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder that gets the pictures")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_pictures(arguments.out, arguments.n, arguments.seed)


if __name__ == "__main__":
    main()
