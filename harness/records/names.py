"""Names that files carry and that paths are made of: whoever wrote the file, they can lead to no other folder."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

LONGEST_BYTES = 200
"""Of a name in UTF-8; file systems take 255, endings included."""
_PICTURE = re.compile(r"[0-9a-f]{16}-\d{1,5}x\d{1,5}", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{16}", re.ASCII)
_SAMPLE = re.compile(r"\w[\w.:-]{0,199}")


def _fits(name: str) -> str:
    if len(name.encode(errors="replace")) > LONGEST_BYTES:
        raise ValueError(f"a name has at most {LONGEST_BYTES} bytes")
    return name


SuiteName = Annotated[str, Field(pattern=r"^\w[\w.-]*$"), AfterValidator(_fits)]
"""Name of a suite, and of the folder of its results."""
CellId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
"""Identity of a cell, and the name of its files."""


def is_picture_name(name: object) -> bool:
    """Whether something is the name of a picture: the content hash of an image, and the picture's own size."""
    return isinstance(name, str) and _PICTURE.fullmatch(name) is not None


def is_hash(text: object) -> bool:
    """Whether something is a hash of an image, of its content or of its look."""
    return isinstance(text, str) and _HASH.fullmatch(text) is not None


def is_sample_name(name: object) -> bool:
    """Whether something is the name of a sample within its task, such as lmms-eval's document number."""
    return isinstance(name, str) and _SAMPLE.fullmatch(name) is not None
