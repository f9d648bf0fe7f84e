"""Where vision tokens lie in a picture: back through tiles, padding, cropping and stretching."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL.Image import Image

from vtpbench.harness.pruning.model import VisionLanguageModel
from vtpbench.pruners.base import Grid

Region = tuple[float, float, float, float]
"""Left, top, right, bottom, as fractions of a picture's width and height; beyond 0 and 1 lies padding."""
WHOLE: Region = (0.0, 0.0, 1.0, 1.0)
SEAM = 0.04
"""Space between a picture and its enlargement, as a fraction of its longer side."""
MIRRORED = (1, 0, 3, 2)
"""Columns of a box when width and height change places."""


def padded_or_cropped(family: VisionLanguageModel, image: Image, grid: Grid) -> tuple[Image, NDArray[np.float64]]:
    """LLaVA-1.5: a square that was padded or cropped."""
    return image, divide(_square(family, image), grid.height, grid.width)


def tiled(image: Image, grid: Grid) -> tuple[Image, NDArray[np.float64]]:
    """LLaVA-NeXT: a base tile of the whole image, stretched, and tiles of an enlarged one, padded."""
    return _tiles(image, grid, _letterbox(image, (grid.tiles - 1) // grid.across, grid.across))


def stretched_tiles(image: Image, grid: Grid) -> tuple[Image, NDArray[np.float64]]:
    """InternVL: a base tile of the whole image, and tiles of an enlarged one, both stretched."""
    return _tiles(image, grid, WHOLE)


def _tiles(image: Image, grid: Grid, shown: Region) -> tuple[Image, NDArray[np.float64]]:
    """Find the boxes of a base tile, and of tiles that show a region of the image together, on the image twice."""
    down = (grid.tiles - 1) // grid.across
    rows, columns = down * grid.height, grid.across * grid.width
    enlarged = divide(shown, rows, columns)
    order = np.arange(rows * columns).reshape(down, grid.height, grid.across, grid.width).swapaxes(1, 2).flatten()
    return _beside(image, divide(WHOLE, grid.height, grid.width), enlarged[order])


def packed(image: Image, grid: Grid, sides: tuple[int, int]) -> tuple[Image, NDArray[np.float64]]:
    """LLaVA-OneVision: a base tile of the whole image, stretched, and an enlarged one without padding, of `sides` tokens."""
    down = (grid.tiles - 1) // grid.across
    left, top, right, bottom = _letterbox(image, down, grid.across)
    x, y = (right - left) / (grid.across * grid.width), (bottom - top) / (down * grid.height)
    shown = left + grid.left * x, top + grid.top * y, right - grid.left * x, bottom - grid.top * y
    return _beside(image, divide(WHOLE, grid.height, grid.width), divide(shown, *sides))


def _beside(image: Image, base: NDArray[np.float64], enlarged: NDArray[np.float64]) -> tuple[Image, NDArray[np.float64]]:
    """Put a wide image above itself, or a tall one beside; boxes of the base tile come first, on the first of them."""
    if image.width >= image.height:
        return _twice(image, base, enlarged)
    turned, boxes = _twice(image.transpose(Pillow.Transpose.TRANSPOSE), base[:, MIRRORED], enlarged[:, MIRRORED])
    return turned.transpose(Pillow.Transpose.TRANSPOSE), boxes[:, MIRRORED]


def _twice(image: Image, upper: NDArray[np.float64], lower: NDArray[np.float64]) -> tuple[Image, NDArray[np.float64]]:
    """Put an image above itself, some boxes on the one and some on the other."""
    below = image.height + round(SEAM * image.width)
    canvas = Pillow.new("RGB", (image.width, below + image.height), "white")
    canvas.paste(image, (0, 0))
    canvas.paste(image, (0, below))
    share, shift = image.height / canvas.height, below / canvas.height
    return canvas, np.concatenate([upper * (1, share, 1, share), lower * (1, share, 1, share) + (0, shift, 0, shift)])


def _square(family: Any, image: Image) -> Region:
    """Find what LLaVA-1.5 shows of an image: the square that is padded around it and, of that, what is not cropped."""
    width, height = image.size
    side = max(width, height)
    padded = family.preprocessing == "pad"
    left, top = (-((side - width) // 2), -((side - height) // 2)) if padded else (0, 0)
    across, down = (side, side) if padded else (width, height)
    cut = _crop(family.image_processor, across, down)
    return (
        (left + cut[0] * across) / width,
        (top + cut[1] * down) / height,
        (left + cut[2] * across) / width,
        (top + cut[3] * down) / height,
    )


def _crop(processor: Any, width: int, height: int) -> Region:
    """Find what CLIP's processor leaves of a picture: resized by its shorter side, or stretched, then cut from the middle."""
    if not processor.do_center_crop:
        return WHOLE
    size = dict(processor.size)
    if edge := size.get("shortest_edge"):
        resized = (edge * width / min(width, height), edge * height / min(width, height))
    else:
        resized = (size["width"], size["height"])
    across, down = (processor.crop_size[side] / length for side, length in zip(("width", "height"), resized, strict=True))
    return (1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2


def _letterbox(image: Image, down: int, across: int) -> Region:
    """Find what `down` x `across` square tiles show of an image that is enlarged to fit and centred on padding."""
    stretch = min(across / image.width, down / image.height)
    wide, high = across / (stretch * image.width), down / (stretch * image.height)
    return (1 - wide) / 2, (1 - high) / 2, (1 + wide) / 2, (1 + high) / 2


def divide(region: Region, rows: int, columns: int) -> NDArray[np.float64]:
    """Divide a region into equal cells in raster order, and cut off what lies outside the picture."""
    x, y = np.linspace(region[0], region[2], columns + 1), np.linspace(region[1], region[3], rows + 1)
    left, top = (grid.flatten() for grid in np.meshgrid(x[:-1], y[:-1]))
    right, bottom = (grid.flatten() for grid in np.meshgrid(x[1:], y[1:]))
    return np.clip(np.stack([left, top, right, bottom], axis=1), 0, 1)
