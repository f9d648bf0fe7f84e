"""Join result folders of several machines: equal cells are checked for equality, nothing is overwritten silently."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtpbench.harness.gather.merge_shards import find_shards
from vtpbench.harness.records.differences import differences
from vtpbench.harness.records.folders import stores
from vtpbench.harness.records.record import Record
from vtpbench.harness.records.samples import read_kept, table_hash
from vtpbench.harness.records.shard_note import shard_folders
from vtpbench.harness.records.store import Store
from vtpbench.pruners.errors import UserError

OUTCOME = {"status", "score", "stderr", "metrics", "n", "observed"}
"""Fields that must agree. What was asked for is part of the id; the others tell when and where the cell ran."""
SHOWN = 20
"""Conflicts in one message."""


@dataclass(frozen=True)
class Copy:
    """A record where it was found."""

    record: Record
    store: Store

    @property
    def path(self) -> Path:
        """File of the record."""
        return self.store.record_path(self.record.cell_id)

    def rows(self) -> list[dict[str, Any]] | None:
        """Read its per-sample table; None where it has none that is whole, which a cell without a score need not have."""
        table = self.store.samples(self.record.cell_id)
        if table is None:
            return None
        return [dict(zip(table.columns, row, strict=True)) for row in table.astype(object).where(table.notna(), None).to_numpy()]

    def pictured(self) -> list[str]:
        """Name the pictures that its table refers to, once for each image."""
        kept = [image for row in self.rows() or () for image in read_kept(row["kept"])]
        return [image.picture for image in kept]


@dataclass
class Merged:
    """What a merge did, in cells."""

    added: int = 0
    known: int = 0
    """Were in the target already; their copies are equal."""
    copies: int = 0
    """Further, equal copies of a cell among the sources."""
    replaced: list[str] = field(default_factory=list)
    """Ids of failed cells in the target whose place a result took."""
    shards: list[str] = field(default_factory=list)
    """What was said of the shards that were joined."""

    def lines(self) -> list[str]:
        """Say in lines what was added, known, copied and replaced."""
        found = f"{self.added} cells added, {self.known} were there already, {self.copies} equal copies"
        told = [] if self.shards and not self.added + self.known + self.copies else [found]
        return [*self.shards, *told, *(f"cell {cell}: a result took the place of a failed record" for cell in self.replaced)]


def merge(folders: Sequence[Path], out: Path, warn: Callable[[str], None]) -> Merged:
    """Copy the records of `folders`, their tables and pictures to `out`, one folder per suite; journals and leases stay behind.

    Of shards the answers are joined (`vtpbench.harness.gather.merge_shards`).

    Nothing is written before every cell was checked. Every file is then written whole or not at all, pictures before the
    per-sample table that names them, and a record last, so that a merge that was killed is completed by repeating it.

    Parameters
    ----------
    folders : results of one suite each, or of several, one folder each
    out : new, or results that are added to; what lies there takes part in the checks
    warn : called with a line for each record that cannot be trusted; it is left out

    Raises
    ------
    UserError : a folder holds no records, or copies of a cell differ; all of them are named

    """
    shards = find_shards(folders, out, warn)
    targets = {store.folder: store for store in _stores(out, warn)}
    own = [Copy(record, store) for store in targets.values() for record in store.records()]
    sources = [store for folder in folders for store in _required(folder, out, warn)]
    found = [Copy(record, store) for store in sources for record in store.records()]
    cells: dict[tuple[str, str], list[Copy]] = {}
    for copy in [*own, *found]:
        cells.setdefault((copy.record.suite, copy.record.cell_id), []).append(copy)
    conflicts = [line for copies in cells.values() for line in _conflicts(copies)]
    conflicts += [line for joined in shards for line in joined.conflicts()]
    if conflicts:
        more = [f"and {len(conflicts) - SHOWN} more"] if len(conflicts) > SHOWN else []
        told = "\n  ".join([*conflicts[:SHOWN], *more])
        raise UserError(
            f"copies of a cell differ; nothing was written:\n  {told}\nremove the wrong record of each pair and merge again"
        )
    merged = Merged()
    for (suite, _), copies in sorted(cells.items()):
        _write(copies, targets.setdefault(out / suite, Store(out / suite, warn)), merged)
    merged.shards = [line for joined in shards for line in joined.lines(joined.write())]
    return merged


def _stores(folder: Path, warn: Callable[[str], None]) -> list[Store]:
    return [Store(path, warn) for path in stores(folder)]


def _required(folder: Path, out: Path, warn: Callable[[str], None]) -> list[Store]:
    if folder.resolve() == out.resolve():
        raise UserError(f"{folder} is the target as well as a source; leave it out, what lies in --out is kept anyway")
    found = _stores(folder, warn)
    if not found and not shard_folders(folder):
        raise UserError(f"no results in {folder}: expected a folder `records`, or folders of suites that have one")
    return found


def _write(copies: Sequence[Copy], target: Store, merged: Merged) -> None:
    """Bring one cell to the target unless it is there."""
    there = [copy for copy in copies if copy.store.folder.resolve() == target.folder.resolve()]
    best = _best(copies)
    merged.copies += len(copies) - 1 - bool(there and len(copies) > 1)
    equals = [best, *(copy for copy in copies if copy is not best and copy.record.status == best.record.status)]
    tables = [(copy, copy.pictured()) for copy in equals if copy.rows() is not None]
    record = best.record
    if tables:
        copy, names = max(tables, key=lambda table: len(table[1]))
        record = record.model_copy(update={"samples_sha256": _write_samples(copy, names, target)})
    if best in there and record == best.record:
        merged.known += 1
        return
    merged.known += best in there
    merged.added += best not in there
    if there and best not in there:
        merged.replaced.append(record.cell_id)
    target.add(record)


def _write_samples(copy: Copy, pictures: Sequence[str], target: Store) -> str:
    """Bring a per-sample table to the target, the pictures that it names first; returns the hash of its file."""
    data = copy.store.table(copy.record)
    assert data is not None, "its rows were read"
    if copy.store.folder.resolve() == target.folder.resolve():
        return table_hash(data)
    for name in sorted(set(pictures)):
        picture = copy.store.picture(name)
        if picture is not None and target.picture(name) is None:
            target.save_picture(name, picture)
    return target.save_table(copy.record.cell_id, data)


def _best(copies: Sequence[Copy]) -> Copy:
    """Prefer any result to a failure, else the first."""
    return next((copy for copy in copies if copy.record.status != "failed"), copies[0])


def _conflicts(copies: Sequence[Copy]) -> Iterator[str]:
    """Name what differs from the first result; failures are none, the next run would have tried them again."""
    results = [copy for copy in copies if copy.record.status != "failed"]
    for other in results[1:]:
        first = results[0]
        difference = next(_differences(first, other), None)
        if difference is not None:
            record = first.record
            name = f"{record.suite}/{record.cell_id} ({record.model.label}, {record.pruner.label}, {record.benchmark.label})"
            yield f"{name}: {difference}: {first.path} and {other.path}"


def _differences(one: Copy, other: Copy) -> Iterator[str]:
    yield from differences(_facts(one.record), _facts(other.record))
    rows = one.rows(), other.rows()
    if rows[0] is not None and rows[1] is not None:
        yield from differences(_by_question(rows[0]), _by_question(rows[1]))


def _facts(record: Record) -> dict[str, Any]:
    labels = {"model": record.model.label, "pruner": record.pruner.label, "benchmark": record.benchmark.label}
    return {**record.model_dump(mode="json", include=OUTCOME), "label of the": labels}  # a label changes no id, but the table


def _by_question(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    # How many samples are pictured is no part of a cell's identity, so that copies may differ in it.
    facts = [{name: value for name, value in row.items() if name != "kept"} for row in rows]
    return {"questions": len(rows)} | {f"question {row['sample']}": row for row in facts}
