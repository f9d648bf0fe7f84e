"""The per-sample table as a file: written once, named by the hash that its record holds, and read only as it was written."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from vtpbench.harness.host.checksummed import BadRecord
from vtpbench.harness.host.json_text import BadJson, parse_json
from vtpbench.harness.records.cell import KeptTokens, Sample
from vtpbench.harness.records.names import is_hash, is_sample_name

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

COLUMNS = tuple(field.name for field in dataclasses.fields(Sample))
NUMBERS = ("score", "tokens")
"""Columns that hold numbers; the others hold text, and no row of these is empty."""
NEWEST = "perceptual_hash"
"""Column that tables of earlier versions lack; it is empty there."""


def table_hash(data: bytes) -> str:
    """Name the content of a table's file."""
    return sha256(data).hexdigest()


def write_table(samples: Sequence[Sample]) -> bytes:
    """Write a table as a Parquet file; the same samples give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([vars(sample) for sample in samples], schema=_schema()), buffer)
    return buffer.getvalue()


def read_table(data: bytes) -> pd.DataFrame:
    """Read a table; raises `BadRecord` where it is none, or holds what no run writes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(io.BytesIO(data)).read()
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as e:  # as damage in Parquet's own fields has it
        raise BadRecord(f"not readable as Parquet: {(str(e).strip().splitlines() or [type(e).__name__])[0]}") from e
    if NEWEST not in table.column_names:
        table = table.append_column(NEWEST, pa.array([""] * table.num_rows, pa.string()))
    if not table.schema.equals(_schema()):
        raise BadRecord(f"its columns are not {', '.join(COLUMNS)}")
    if any(table[name].null_count for name in COLUMNS if name not in NUMBERS):
        raise BadRecord("a text is missing")
    try:
        frame: pd.DataFrame = table.to_pandas()
    except (pa.ArrowException, ValueError) as e:  # text that is no UTF-8
        raise BadRecord(f"its texts cannot be read: {e}") from e
    if any(abs(value) == float("inf") for name in NUMBERS for value in frame[name]):
        raise BadRecord("a number is not finite")
    _refuse_foreign_names(frame["sample"])
    if not all(is_hash(text) for text in frame[NEWEST].unique() if text):
        raise BadRecord("a perceptual hash is none")
    for text in frame["detail"]:
        _refuse_foreign_detail(text)
    for text in frame["kept"]:
        read_kept(text)
    return frame


def read_kept(text: str) -> tuple[KeptTokens, ...]:
    """Read what a row says of its images' kept tokens, none where it is empty; raises `BadRecord` where it cannot be that."""
    try:
        return tuple(kept_tokens(image) for image in parse_json(text)) if text else ()
    except (KeyError, TypeError, ValueError) as e:
        raise BadRecord(f"`kept` is no list of kept tokens: {e}") from e


def kept_tokens(image: Any) -> KeptTokens:
    """Make kept tokens of their JSON; raises `KeyError`, `TypeError` or `ValueError` where it is something else."""
    tiles = tuple((tuple(map(_edge, columns)), tuple(map(_edge, rows))) for columns, rows in image["tiles"])
    cuts = tuple((as_count(layer), tuple(as_count(token, -1) for token in tokens)) for layer, tokens in image["cuts"])
    if set(image) != {"picture", "tokens", "tiles", "cuts"}:
        raise ValueError("unknown fields")
    return KeptTokens(image["picture"], as_count(image["tokens"]), tiles, cuts)


def _edge(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1e6:
        raise ValueError(f"{value!r} is no edge in pixels")
    return value


def as_count(value: Any, least: int = 0) -> int:
    """Take a whole number of at least `least`; raises `ValueError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 2**31:
        raise ValueError(f"{value!r} is no count")
    return value


def _refuse_foreign_detail(text: str) -> None:
    try:
        value = parse_json(text, finite=False)
    except BadJson as e:
        raise BadRecord(f"`detail` is no JSON: {e}") from e
    if not isinstance(value, dict):
        raise BadRecord("`detail` is no JSON object")


def _refuse_foreign_names(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen or not is_sample_name(name):
            raise BadRecord(f"{name!r:.60} is no name of a sample, or stands twice")
        seen.add(name)


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([(name, pa.float64() if name in NUMBERS else pa.string()) for name in COLUMNS])
