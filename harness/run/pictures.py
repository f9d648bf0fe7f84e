"""Small pictures of a few questions' images, so that a report can show which vision tokens stayed.

A picture is written once, whichever cells show it: its name is the image's content hash and its own size. It holds what
`VisionLanguageModel.boxes` draws on; where the tokens lie in it goes with the answers.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock

from vtpbench.harness.host.files import write_atomic, writing
from vtpbench.harness.records.cell import Tiles
from vtpbench.harness.records.store import picture_path

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from vtpbench.harness.pruning.model import VisionLanguageModel
    from vtpbench.pruners.base import Grid

LONGEST = 336
"""Pixels of an image's longer side; a smaller one stays as it is."""
QUALITY = 85
"""Of the JPEG, 0-95."""


@dataclass(frozen=True)
class TokenPlaces:
    """A picture in the results, and where the tokens lie in it."""

    picture: str
    tiles: Tiles


@dataclass(frozen=True)
class PictureFolder:
    """The pictures in the results of one suite.

    Attributes
    ----------
    folder : results of the suite
    questions : how many of each benchmark are pictured

    """

    folder: Path
    questions: int

    def chosen(self, n: int) -> frozenset[int]:
        """Numbers of the questions to picture, out of `n`: the first, and others at equal distances, on other images."""
        wanted = min(self.questions, n)
        return frozenset(i * n // wanted for i in range(wanted))

    def add(self, family: VisionLanguageModel, name: str, image: Image, grid: Grid) -> TokenPlaces:
        """Make sure that a picture of an image is on disk; `name` is the image's, `grid` how its tokens lie."""
        canvas, boxes = family.boxes(image, grid)
        scale = min(1.0, LONGEST / max(image.size))
        width, height = (max(1, round(scale * side)) for side in canvas.size)
        picture = f"{name}-{width}x{height}"
        path = picture_path(self.folder, picture)
        assert path is not None, "names of images are content hashes"
        if not path.exists():
            self._write(path, canvas.convert("RGB").resize((width, height)))
        return TokenPlaces(picture, _tiles(boxes, grid, width, height))

    def _write(self, path: Path, picture: Image) -> None:
        """Write a picture; one at a time, since runs of different cells may show the same image."""
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=QUALITY, optimize=True)
        lock = self.folder / "locks" / "pictures.lock"
        with writing(lock):
            lock.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(lock):
                write_atomic(path, stream.getvalue())


def _tiles(boxes: NDArray[np.float64], grid: Grid, width: int, height: int) -> Tiles:
    """Write boxes `(n, 4)`, fractions, as edges in pixels: within a tile, columns share theirs, and so do rows."""
    scaled = (boxes * (width, height, width, height)).round(1)
    ends = np.cumsum([rows * columns for rows, columns in grid.pictures])[:-1]
    tiles = (part.reshape(*sides, 4) for part, sides in zip(np.split(scaled, ends), grid.pictures, strict=True))
    return tuple(
        ((*tile[0, :, 0].tolist(), tile[0, -1, 2].item()), (*tile[:, 0, 1].tolist(), tile[-1, 0, 3].item())) for tile in tiles
    )
