"""The results of one suite on disk: what is done, what is missing, and who is at work on what.

Below the suite's folder lie, named after the cell's id:

- `records/*.json`: measured cells; a cell without a record is missing
- `samples/*.parquet`: per-sample tables, each written before its record
- `journal/*.jsonl`: answers of cells that are not finished
- `logs/*.log`: what was printed, warned and logged in the last attempt at a cell, where anything was
- `runs/*.json`: what runs say of themselves, see `vtpbench.harness.records.run_state`
- `locks/*.lock`: held while a run works on a cell; the system frees them when the run dies

`pictures/*.jpg` belong to all cells: each is named after what it shows, and written before the answers that refer to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from filelock import FileLock, Timeout

from vtpbench.harness.host.checksummed import BadRecord
from vtpbench.harness.host.files import prepare, read_regular, set_aside, write_atomic, writing
from vtpbench.harness.records.cell import Cell, Sample
from vtpbench.harness.records.journal import FileJournal
from vtpbench.harness.records.names import is_picture_name
from vtpbench.harness.records.record import Record, load_record
from vtpbench.harness.records.samples import read_table, table_hash, write_table

if TYPE_CHECKING:
    import pandas as pd

POLL_S = 0.2


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

    def below(self, folder: Path) -> Store:
        """Give a further folder, which warns of the same."""
        return Store(folder, self._warn)

    def prepare(self) -> None:
        """Make the folders and try them; raises `StorageError` where they cannot be written."""
        for name in ("records", "samples", "journal", "locks"):
            prepare(self.folder / name)

    def read(self, cell_id: str) -> Record | None:
        """Record of a cell; None where there is none, or, after a warning, where it cannot be trusted."""
        path = self.record_path(cell_id)
        if not os.path.lexists(path):
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
        """Cells still to be run: those without a record or its per-sample table, and those that failed; damage is warned of."""
        return tuple(cell for cell in cells if not self.is_whole(self.read(cell.id)))

    def is_whole(self, record: Record | None) -> bool:
        """Whether a cell needs no further attempt, and has its table of samples."""
        return is_done(record) and (record.status != "ok" or self._table(record) is not None)

    def journal(self, cell: Cell, device: str | None = None) -> FileJournal:
        """Where the answers of an unfinished cell go; what is damaged there is warned of, and set aside.

        `device` is the kind that gives them; raises `UserError` where there are answers of another kind.
        """
        journal = FileJournal(self.journal_path(cell.id), device)
        journal.refuse_other_device()
        is_file = journal.path.is_file()
        damaged = journal.damaged() if is_file else 0
        if damaged or (os.path.lexists(journal.path) and not is_file):
            what = f"{damaged} lines are no answers of this cell (edited or damaged)" if is_file else "is no file"
            self._warn(f"{journal.path}: {what}; kept as {journal.heal().name}, their questions are asked again")
        return journal

    def refuse_other_device(self, cells: Iterable[Cell], device: str) -> None:
        """Raise `UserError` where unfinished cells have answers of another kind of device."""
        for cell in cells:
            FileJournal(self.journal_path(cell.id), device).refuse_other_device()

    def kept_answers(self, cell_id: str) -> int:
        """Count the answers of a cell that is not finished, without reading them; a line that was cut off is none."""
        path, count = self.journal_path(cell_id), 0
        with suppress(OSError), path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                count += chunk.count(b"\n")
        return count

    def clear(self) -> None:
        """Remove the journals and locks of finished cells: a run that was killed may have left them."""
        left = [*(self.folder / "journal").glob("*.jsonl"), *(self.folder / "locks").glob("*.lock")]
        for cell_id in dict.fromkeys(path.stem for path in left):
            if self.is_whole(self.read(cell_id)):
                with self._lease(cell_id, wait=False):
                    pass  # removes them

    def picture(self, name: str) -> bytes | None:
        """Picture that a per-sample table names, as JPEG; None where there is none."""
        path = picture_path(self.folder, name)
        return None if path is None else read_regular(path)

    def save_picture(self, name: str, jpeg: bytes) -> None:
        """Write a picture; before the table that names it, so that it is there when it is looked for."""
        path = picture_path(self.folder, name)
        assert path is not None, "what `picture` gave has a name that is one"
        write_atomic(path, jpeg)

    @contextmanager
    def lease(self, cell: Cell, wait: bool = False) -> Iterator[bool]:
        """Claim a cell for this process; yields False, at once, where another live run holds it, unless told to wait."""
        with self._lease(cell.id, wait) as mine:
            yield mine

    @contextmanager
    def _lease(self, cell_id: str, wait: bool) -> Iterator[bool]:
        path = self.folder / "locks" / f"{cell_id}.lock"
        lock = FileLock(path)
        with writing(path), suppress(Timeout):  # `is_locked` tells
            lock.acquire(timeout=-1 if wait else 0, poll_interval=POLL_S)
        try:
            yield lock.is_locked
        finally:
            # Who waits for a file that is gone gets a lock all the same, looks at the record, and finds nothing to do.
            if lock.is_locked and self.is_whole(self.read(cell_id)):
                with writing(path):
                    self.journal_path(cell_id).unlink(missing_ok=True)
                    path.unlink(missing_ok=True)
            lock.release()

    def save_samples(self, cell_id: str, samples: Sequence[Sample]) -> str:
        """Write a cell's per-sample table, and return the hash that its record is to hold; see `save_table`."""
        return self.save_table(cell_id, write_table(samples))

    def save_table(self, cell_id: str, data: bytes) -> str:
        """Write the file of a per-sample table and return its hash; before its record, so that a record always has its table.

        A file under its name that is not the table of a record there is kept beside it as `<cell id>.bad1`, `.bad2` ...
        """
        path = self.samples_path(cell_id)
        if os.path.lexists(path) and self.record_path(cell_id).exists():
            record = self.read(cell_id)
            if record is None or self._table(record) is None:
                set_aside(path)
        write_atomic(path, data)
        return table_hash(data)

    def table(self, record: Record) -> bytes | None:
        """File of a record's per-sample table; None where there is none, or, after a warning, where it is not this record's."""
        data = self._table(record)
        return None if data is None or self._read(record.cell_id, data) is None else data

    def _table(self, record: Record) -> bytes | None:
        """Read the file of a table, and compare it with the hash that its record holds."""
        path = self.samples_path(record.cell_id)
        if record.samples_sha256 is None:
            return None
        data = read_regular(path)
        if data is None:
            self._warn_once(path, f"{path} is missing or no file; the next run measures its cell again")
        elif table_hash(data) != record.samples_sha256:
            why = "is not the table that its record names (edited, damaged, or of another cell)"
            self._warn_once(path, f"{path} {why} and is skipped; the next run measures its cell again")
            return None
        return data

    def samples(self, cell_id: str) -> pd.DataFrame | None:
        """Per-sample table of a cell, columns as the fields of `Sample`; None where there is none, after a warning for a
        damaged one.
        """  # noqa: D205 - one sentence
        record = self.read(cell_id)
        data = None if record is None else self._table(record)
        return None if data is None else self._read(cell_id, data)

    def _read(self, cell_id: str, data: bytes) -> pd.DataFrame | None:
        path = self.samples_path(cell_id)
        try:
            return read_table(data)
        except BadRecord as e:
            self._warn_once(path, f"{path}: {e}; it is skipped; remove it, and the next run measures its cell again")
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
        if os.path.lexists(path) and self.read(record.cell_id) is None:
            set_aside(path)
        write_atomic(path, record.dump().encode())
        if is_done(record):
            FileJournal(self.journal_path(record.cell_id)).remove()

    def record_path(self, cell_id: str) -> Path:
        """File of a cell's record."""
        return self.folder / "records" / f"{cell_id}.json"

    def journal_path(self, cell_id: str) -> Path:
        """File of the answers of a cell that is not finished."""
        return self.folder / "journal" / f"{cell_id}.jsonl"

    def log_path(self, cell_id: str) -> Path:
        """File of what was said while a cell was measured."""
        return self.folder / "logs" / f"{cell_id}.log"

    def forget_log(self, cell_id: str) -> None:
        """Remove what was said in an earlier attempt at a cell."""
        path = self.log_path(cell_id)
        with writing(path):
            path.unlink(missing_ok=True)

    def samples_path(self, cell_id: str) -> Path:
        """File of a cell's per-sample table."""
        return self.folder / "samples" / f"{cell_id}.parquet"


def picture_path(folder: Path, name: str) -> Path | None:
    """File of a picture in the results of a suite; None for what is no picture's name."""
    return folder / "pictures" / f"{name}.jpg" if is_picture_name(name) else None


def is_done(record: Record | None) -> TypeGuard[Record]:
    """Whether a cell needs no further attempt; a failed one does."""
    return record is not None and record.status != "failed"
