"""The results of one suite on disk: what is done, what is missing, and who is at work on what.

Below the suite's folder lie, named after the cell's id:

- `records/*.json`: measured cells; a cell without a record is missing
- `samples/*.parquet`: per-sample tables, each written before its record
- `journal/*.jsonl`: answers of cells that are not finished
- `locks/*.lock`: held while a run works on a cell; the system frees them when the run dies

`pictures/*.jpg` belong to all cells: each is named after what it shows, and written before the answers that refer to it.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from filelock import FileLock, Timeout

from vtpbench.harness.host.checksummed import BadRecord
from vtpbench.harness.host.files import prepare, write_atomic, writing
from vtpbench.harness.records.cell import Cell, Sample
from vtpbench.harness.records.journal import FileJournal
from vtpbench.harness.records.names import is_picture_name
from vtpbench.harness.records.record import Record, load_record

if TYPE_CHECKING:
    import pandas as pd

POLL_S = 0.2
_MAGIC = b"PAR1"
"""At the beginning and the end of a Parquet file."""


class Store:
    """Records, per-sample tables, journals and leases in one folder.

    Parameters
    ----------
    folder : results of one suite; created by `prepare`
    warn : called once with a line for each record file that cannot be trusted

    """

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self.folder = folder
        self._warn = warn
        self._warned: set[Path] = set()

    def prepare(self) -> None:
        """Make the folders and try them; raises `StorageError` where they cannot be written."""
        for name in ("records", "samples", "journal", "locks"):
            prepare(self.folder / name)

    def read(self, cell_id: str) -> Record | None:
        """Record of a cell; None where there is none, or, after a warning, where it cannot be trusted."""
        path = self.record_path(cell_id)
        if not path.exists():
            return None
        try:
            record = load_record(path)
            if record.cell_id != cell_id:
                raise BadRecord(f"{path}: holds the cell {record.cell_id}")
        except BadRecord as e:
            self._warn_once(path, f"{e}; it is skipped, and the next run measures its cell again")
            return None
        return record

    def records(self) -> list[Record]:
        """All records of the folder that can be trusted, in the order of their ids."""
        found = (self.read(path.stem) for path in sorted((self.folder / "records").glob("*.json")))
        return [record for record in found if record is not None]

    def missing(self, cells: Iterable[Cell]) -> tuple[Cell, ...]:
        """Cells still to be run: those without a record or per-sample table, with a damaged one, and those that failed."""
        return tuple(cell for cell in cells if not self.is_whole(self.read(cell.id)))

    def is_whole(self, record: Record | None) -> bool:
        """Whether a cell needs no further attempt, and has its table of samples."""
        return is_done(record) and (record.status != "ok" or _ends_well(self.samples_path(record.cell_id)))

    def journal(self, cell: Cell) -> FileJournal:
        """Where the answers of an unfinished cell go."""
        return FileJournal(self.folder / "journal" / f"{cell.id}.jsonl")

    def picture(self, name: str) -> bytes | None:
        """Picture that a per-sample table names, as JPEG; None where there is none."""
        path = picture_path(self.folder, name)
        return path.read_bytes() if path is not None and path.exists() else None

    def save_picture(self, name: str, jpeg: bytes) -> None:
        """Write a picture; before the table that names it, so that it is there when it is looked for."""
        path = picture_path(self.folder, name)
        assert path is not None, "what `picture` gave has a name that is one"
        write_atomic(path, jpeg)

    @contextmanager
    def lease(self, cell: Cell, wait: bool = False) -> Iterator[bool]:
        """Claim a cell for this process; yields False, at once, where another live run holds it, unless told to wait."""
        path = self.folder / "locks" / f"{cell.id}.lock"
        lock = FileLock(path)
        with writing(path), suppress(Timeout):  # `is_locked` tells
            lock.acquire(timeout=-1 if wait else 0, poll_interval=POLL_S)
        try:
            yield lock.is_locked
        finally:
            lock.release()

    def save_samples(self, cell_id: str, samples: Sequence[Sample]) -> None:
        """Write a cell's per-sample table; before its record, so that a record always has its table."""
        write_atomic(self.samples_path(cell_id), _parquet(samples))

    def samples(self, cell_id: str) -> pd.DataFrame | None:
        """Per-sample table of a cell, columns as the fields of `Sample`; None where there is none, after a warning for a
        damaged one.
        """  # noqa: D205 - one sentence
        import pandas as pd
        from pyarrow import ArrowException

        path = self.samples_path(cell_id)
        if not path.exists():
            return None
        try:
            return pd.read_parquet(path)
        except (ArrowException, OSError) as e:
            reason = str(e).splitlines()[0]
            mend = "remove it, and the next run measures its cell again"
            self._warn_once(path, f"{path} is damaged ({reason}) and is skipped; {mend}")
            return None

    def _warn_once(self, path: Path, line: str) -> None:
        if path not in self._warned:
            self._warned.add(path)
            self._warn(line)

    def add(self, record: Record) -> None:
        """Write a record and, unless the cell failed and will be tried again, forget its journal.

        A damaged file under its name is kept beside it as `<cell id>.bad1`, `.bad2` ...
        """
        path = self.record_path(record.cell_id)
        if path.exists() and self.read(record.cell_id) is None:
            aside = next(p for i in count(1) if not (p := path.with_suffix(f".bad{i}")).exists())
            with writing(aside):
                path.rename(aside)
        write_atomic(path, record.dump().encode())
        if is_done(record):
            FileJournal(self.folder / "journal" / f"{record.cell_id}.jsonl").remove()

    def record_path(self, cell_id: str) -> Path:
        """File of a cell's record."""
        return self.folder / "records" / f"{cell_id}.json"

    def samples_path(self, cell_id: str) -> Path:
        """File of a cell's per-sample table."""
        return self.folder / "samples" / f"{cell_id}.parquet"


def picture_path(folder: Path, name: str) -> Path | None:
    """File of a picture in the results of a suite; None for what is no picture's name."""
    return folder / "pictures" / f"{name}.jpg" if is_picture_name(name) else None


def is_done(record: Record | None) -> TypeGuard[Record]:
    """Whether a cell needs no further attempt; a failed one does."""
    return record is not None and record.status != "failed"


def _ends_well(table: Path) -> bool:
    """Whether a Parquet file is there and has its end, which one that was cut off lacks; without reading it."""
    if not table.exists() or table.stat().st_size < 2 * len(_MAGIC):
        return False
    with table.open("rb") as stream:
        stream.seek(-len(_MAGIC), io.SEEK_END)
        return stream.read() == _MAGIC


def _parquet(samples: Sequence[Sample]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [field.name for field in dataclasses.fields(Sample)]
    schema = pa.schema([(name, pa.float64() if name in ("score", "tokens") else pa.string()) for name in names])
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dataclasses.asdict(sample) for sample in samples], schema=schema), buffer)
    return buffer.getvalue()
