"""Pictures to train on: image files of a folder, or the `image` column of parquet files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vtpbench.harness.host.files import read_text
from vtpbench.harness.host.images import StoredImage, image_name
from vtpbench.pruners.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".parquet")
_ROWS_AT_ONCE = 64
_HASH = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class ImageFiles:
    """The pictures of some files, in order."""

    files: tuple[Path, ...]

    @classmethod
    def find(cls, path: Path) -> ImageFiles:
        """Take one file, or all of a folder and the folders in it, sorted by name; raises `UserError` without any."""
        if not path.exists():
            raise UserError(f"no images at {path}: there is no such file or folder")
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        files = tuple(file for file in found if file.suffix.lower() in SUFFIXES and file.is_file())
        if not files:
            raise UserError(f"no images at {path}: expected files that end in {', '.join(SUFFIXES)}")
        return cls(files)

    @cached_property
    def _total(self) -> int:
        import pyarrow.parquet as pq

        return sum(pq.ParquetFile(file).metadata.num_rows if _is_table(file) else 1 for file in self.files)

    def __len__(self) -> int:
        return self._total

    def __iter__(self) -> Iterator[StoredImage]:
        for file in self.files:
            if _is_table(file):
                yield from _rows(file)
            else:
                yield StoredImage(str(file), file.read_bytes())


def read_exclusion(path: Path) -> set[str]:
    """Read which pictures not to use: pictures themselves (as `ImageFiles.find`), or a text file with a content hash per line."""
    if path.is_dir() or path.suffix.lower() in SUFFIXES or not path.exists():
        return {image_name(picture.decode()) for picture in ImageFiles.find(path)}
    lines = [line.strip() for line in read_text(path).splitlines()]
    for number, line in enumerate(lines, 1):
        if line and not _HASH.fullmatch(line):
            raise UserError(f"{path}:{number}: expected the content hash of an image, 16 hexadecimal digits, not {line!r}")
    return set(filter(None, lines))


def _is_table(file: Path) -> bool:
    return file.suffix.lower() == ".parquet"


def _rows(file: Path) -> Iterator[StoredImage]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file)
    column = "image"
    kind = table.schema_arrow.field(column).type if column in table.schema_arrow.names else None
    if kind is None or not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise UserError(f"{file} has no column `image` with embedded pictures (a struct with `bytes`), as `datasets` writes it")
    row = 0
    for batch in table.iter_batches(_ROWS_AT_ONCE, columns=[column]):
        for cell in batch.column(column).to_pylist():
            yield StoredImage(f"{file}, row {row}", (cell or {}).get("bytes") or b"")
            row += 1
