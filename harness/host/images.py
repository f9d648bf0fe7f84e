"""Images as they are stored, decoded as benchmarks decode them, and the name that their content gives them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image


def image_name(image: Image) -> str:
    """Content hash of an image, 16 hexadecimal digits."""
    colours = image.convert("RGB")  # what models see; the bytes of a palette image are numbers of colours
    return sha256(f"{colours.mode}{colours.size}".encode() + colours.tobytes()).hexdigest()[:16]


def perceptual_hash(image: Image) -> str:
    """Hash what an image looks like, 16 hexadecimal digits: scaled or compressed anew, few of the 64 bits change.

    Each bit says whether one of 9 x 8 greys is darker than the next in its row.

    Source: Krawetz, Kind of Like That (The Hacker Factor Blog, 2013), dHash.
    """
    from PIL import Image

    grey = image.convert("L").resize((9, 8), Image.Resampling.LANCZOS, reducing_gap=3.0).tobytes()
    darker = (grey[9 * row + column] < grey[9 * row + column + 1] for row in range(8) for column in range(8))
    return f"{sum(bit << place for place, bit in enumerate(darker)):016x}"


@contextmanager
def pillow_settings(truncated: bool | None = None) -> Iterator[None]:
    """Give back what Pillow does about pictures that are cut off as it was, whoever changes it inside.

    `truncated` says what it does inside: False refuses them, True shows what is missing in grey; None leaves it.
    """
    from PIL import ImageFile

    before = ImageFile.LOAD_TRUNCATED_IMAGES
    if truncated is not None:
        ImageFile.LOAD_TRUNCATED_IMAGES = truncated
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


@dataclass(frozen=True)
class StoredImage:
    """One picture as it is stored: `where` is what errors call it."""

    where: str
    data: bytes

    def decode(self) -> Image:
        """Decode to RGB, turned as its camera was held: what `datasets` and the benchmarks' tasks make of the same bytes."""
        from PIL import Image, ImageOps, UnidentifiedImageError

        try:
            with pillow_settings(truncated=False):
                return ImageOps.exif_transpose(Image.open(io.BytesIO(self.data))).convert("RGB")
        except UnidentifiedImageError as e:
            raise UserError(f"cannot read the image {self.where}: no known format; replace or remove it") from e
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:  # as formats and Pillow have it
            raise UserError(f"cannot read the image {self.where}: {str(e).splitlines()[0]}; replace or remove it") from e


def read_image(path: Path) -> Image:
    """Decode an image file to RGB; raises `UserError` where it is missing or unreadable."""
    try:
        data = path.read_bytes()
    except OSError as e:
        raise UserError(f"cannot read the image {path}: {e.strerror}") from e
    return StoredImage(str(path), data).decode()
