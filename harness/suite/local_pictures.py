"""Pictures beside local questions, which these name or the task's code finds: they are asked, too, and their content counts."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

SUFFIXES = "avif|bmp|gif|heic|ico|jfif|jpeg|jpg|mov|mp4|npy|npz|pdf|pgm|png|ppm|svg|tif|tiff|webm|webp"
PICTURE = re.compile(rf"[^\n\r]{{1,1000}}\.({SUFFIXES})", re.IGNORECASE)
"""What may name a picture, or another file that one is made of."""
RESULTS = {"records", "locks"}
"""Folders in the results of a suite: what lies beside them are no data."""
LEAST = 32
"""Bytes of a row from which on a column without text may hold pictures."""
CELLS = 1 << 27
"""Longest field of a CSV file; some hold a picture."""


def local_pictures(files: Iterable[Path], folder: Path | None) -> dict[str, str]:
    """Hash the pictures that questions in local files name; where they name and hold none, all that lie in the task's folder.

    Parameters
    ----------
    files : with the questions
    folder : of a task of one's own, whose code may look for pictures beside it; None for a task that comes with lmms-eval

    """
    data = list(files)
    places = list(dict.fromkeys([*([folder] if folder else []), *(file.parent for file in data), Path()]))
    found = [(file, *_read(file)) for file in data]
    named = {name for _, names, _ in found for name in names}
    if named:
        return _named(sorted(named), places)
    if folder is None or any(embedded for *_, embedded in found):
        return {}
    pictures = (path for path in _walk(folder) if PICTURE.fullmatch(path.name) and path not in data)
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in sorted(pictures)}


def file_hash(path: Path) -> str:
    """Hash the content of a file."""
    digest = sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _named(names: Iterable[str], places: list[Path]) -> dict[str, str]:
    """Hash what each name leads to: from one of the places, or in any folder below the task and the data."""
    hashes: dict[str, str] = {}
    below: dict[str, list[Path]] | None = None
    for name in names:
        path = Path(name.removeprefix("file://"))
        found = [place / path for place in places if os.path.isfile(place / path)]
        if not found:
            if below is None:
                below = {}
                for place in places[:-1]:  # the working folder may be anything
                    for file in _walk(place):
                        below.setdefault(file.name, []).append(file)
            found = [file for file in below.get(path.name, []) if file.as_posix().endswith(path.as_posix().removeprefix("./"))]
        if found:
            hashes[name] = " ".join(dict.fromkeys(map(file_hash, sorted(set(found)))))
    return hashes


def _walk(folder: Path) -> Iterator[Path]:
    """List the files below a folder, but for hidden folders, environments, and results of suites."""
    seen: set[str] = set()
    for base, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(base)
        if real in seen or set(folders) >= RESULTS or "pyvenv.cfg" in files:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        yield from (Path(base, name) for name in files)


def _read(file: Path) -> tuple[set[str], bool]:
    """Names of pictures in a file of questions, and whether it holds pictures itself; nothing of a file of another kind."""
    kind = file.suffix.lower()
    try:
        if kind in (".parquet", ".arrow"):
            return _read_table(file)
        if kind in (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt"):
            return {text for text in _texts(file, kind) if PICTURE.fullmatch(text)}, False
    except (OSError, ValueError, csv.Error, RecursionError):  # whoever loads the data says what is wrong
        pass
    return set(), bool(PICTURE.fullmatch(file.name))


def _texts(file: Path, kind: str) -> Iterator[str]:
    text = file.read_text(encoding="utf-8-sig", errors="replace")
    if kind in (".csv", ".tsv"):
        before = csv.field_size_limit(CELLS)
        try:
            rows = list(csv.reader(io.StringIO(text), delimiter="," if kind == ".csv" else "\t"))
        finally:
            csv.field_size_limit(before)
        yield from (cell for row in rows for cell in row)
    elif kind == ".json":
        try:
            yield from _leaves(json.loads(text))
        except json.JSONDecodeError:  # `datasets` takes JSON lines under this name, too
            yield from _leaves([json.loads(line) for line in text.splitlines() if line.strip()])
    elif kind == ".txt":
        yield from text.splitlines()
    else:
        yield from _leaves([json.loads(line) for line in text.splitlines() if line.strip()])


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)


def _read_table(file: Path) -> tuple[set[str], bool]:
    import pyarrow as pa

    try:
        return _read_arrow(file) if file.suffix.lower() == ".arrow" else _read_parquet(file)
    except pa.ArrowException as e:
        raise ValueError(str(e)) from e


def _read_parquet(file: Path) -> tuple[set[str], bool]:
    """Read the text of a table alone: its pictures may be many times larger."""
    import pyarrow.parquet as pq

    table, names = pq.ParquetFile(file), set[str]()
    leaves = [table.schema.column(n) for n in range(len(table.schema))]
    texts = [leaf.path for leaf in leaves if leaf.logical_type.type == "STRING"]
    bytes_of = {leaf.path: _size(table, n) for n, leaf in enumerate(leaves) if leaf.physical_type == "BYTE_ARRAY"}
    pictures = [path for path, size in bytes_of.items() if path not in texts and size > LEAST * _rows(table)]
    named = {path.removesuffix("bytes") + "path" for path in pictures}  # what a picture was called whose bytes are here
    for batch in table.iter_batches(columns=[path for path in texts if path not in named]):
        for column in batch.columns:
            _add_names(column, names)
    return names, bool(pictures)


def _size(table: Any, leaf: int) -> int:
    groups = (table.metadata.row_group(n) for n in range(table.metadata.num_row_groups))
    return sum(group.column(leaf).total_uncompressed_size for group in groups)


def _rows(table: Any) -> int:
    return max(1, int(table.metadata.num_rows))


def _read_arrow(file: Path) -> tuple[set[str], bool]:
    import pyarrow as pa

    names: set[str] = set()
    with pa.memory_map(str(file)) as source:
        table = pa.ipc.open_stream(source).read_all()
        for column in table.columns:
            for chunk in column.chunks:
                _add_names(chunk, names)
    return names, "binary" in str(table.schema)


def _add_names(column: Any, names: set[str]) -> None:
    """Add the names of pictures in a column, however deep in lists and structures."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        names.update(text for text in column.unique().to_pylist() if text is not None and PICTURE.fullmatch(text))
    elif pa.types.is_dictionary(kind):
        _add_names(column.dictionary, names)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        _add_names(column.flatten(), names)
    elif pa.types.is_struct(kind):
        for part in column.flatten():
            _add_names(part, names)
