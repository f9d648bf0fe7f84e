"""What becomes of a picture before a Qwen-VL model cuts it: by its checkpoint's settings, or as lmms-eval does it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from io import BytesIO

from PIL import Image as Pillow
from PIL.Image import Image

MOST_ELONGATED = 200
"""Longest side of a picture over its shortest; qwen-vl-utils and transformers refuse more."""


@dataclass(frozen=True)
class PictureRule:
    """How pictures are made ready.

    Attributes
    ----------
    fewest, most : pixels that a picture has when it is cut; None = as the checkpoint's image processor says
    jpeg : quality with which it is first written as a JPEG file and read again; None = it is not
    on_white : whether what is transparent is laid on white; else it keeps the colour that hides behind it

    """

    fewest: int | None = None
    most: int | None = None
    jpeg: int | None = None
    on_white: bool = False

    def ready(self, image: Image) -> Image:
        """Give the picture in red, green and blue, at its own size."""
        if self.on_white and image.mode == "RGBA":
            white = Pillow.new("RGB", image.size, "white")
            white.paste(image, mask=image.getchannel("A"))
            return white
        coloured = image.convert("RGB")
        if self.jpeg is None:
            return coloured
        file = BytesIO()
        coloured.save(file, format="JPEG", quality=self.jpeg)
        return Pillow.open(file).convert("RGB")


def fitted(height: int, width: int, unit: int, fewest: int, most: int) -> tuple[int, int]:
    """Rows and columns of squares of `unit` pixels that a picture is resized to, as qwen-vl-utils has them.

    Sides are rounded to whole squares; where these are fewer pixels than `fewest`, or more than `most`, both sides are
    stretched by one factor, and rounded up, or down. At least one square stands on each side.

    Raises
    ------
    ValueError : the picture is more elongated than `MOST_ELONGATED`

    """
    if max(height, width) > MOST_ELONGATED * min(height, width):
        raise ValueError(f"the aspect ratio must be at most {MOST_ELONGATED}, and is {max(height, width) / min(height, width):g}")
    rows, columns = max(1, round(height / unit)), max(1, round(width / unit))
    pixels = rows * columns * unit**2
    if pixels > most:
        shrink = math.sqrt(height * width / most)
        return max(1, math.floor(height / shrink / unit)), max(1, math.floor(width / shrink / unit))
    if pixels < fewest:
        stretch = math.sqrt(fewest / (height * width))
        return math.ceil(height * stretch / unit), math.ceil(width * stretch / unit)
    return rows, columns
