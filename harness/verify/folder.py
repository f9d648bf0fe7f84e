"""A folder of results from end to end: records, tables, ids, budgets, scores, and what is missing between them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtpbench.harness.host.checksummed import BadRecord
from vtpbench.harness.host.files import read_regular
from vtpbench.harness.records.cell import Sample, cell_name
from vtpbench.harness.records.differences import differences
from vtpbench.harness.records.folders import stores
from vtpbench.harness.records.record import Record, load_record
from vtpbench.harness.records.samples import read_table, table_hash
from vtpbench.harness.records.store import Store
from vtpbench.harness.verify.budgets import budget_faults
from vtpbench.harness.verify.counts import count_faults
from vtpbench.harness.verify.identity import deciding_versions, is_named_after_its_facts
from vtpbench.harness.verify.scores import LEVELS, Level, Scorers
from vtpbench.pruners.errors import UserError

ASKED = ("image", "category", "prompt", "target", "images")
"""Columns that are the same in every row of a table: they come from the benchmark."""


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with a file."""

    file: Path
    cell: str
    """As people call it; empty where the file does not say."""
    what: str


@dataclass
class FolderVerdict:
    """What was found in the results of one suite."""

    folder: Path
    statuses: Counter[str] = field(default_factory=Counter)
    """Records that can be read, by status."""
    faults: list[Fault] = field(default_factory=list)
    levels: dict[str, Level] = field(default_factory=dict)
    """What the score of each cell was compared with, by its id."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why they were not compared with more."""

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def lines(self) -> Iterator[str]:
        """Say in one line whether the folder is sound, in one each what is wrong, and what was not looked at."""
        cells = (
            f"{sum(self.statuses.values())} cells ({', '.join(f'{n} {status}' for status, n in sorted(self.statuses.items()))})"
        )
        scores = [f"{n} {LEVELS[level]}" for level, n in self._counted().items() if n]
        found = f"{len(self.faults)} fault{'s' * (len(self.faults) != 1)} in " if self.faults else ""
        yield f"{self.folder}: {'sound' if self.sound else 'NOT SOUND'}: {found}{'; '.join([cells, *scores])}"
        for fault in self.faults:
            yield f"  {fault.file}: {f'{fault.cell}: ' if fault.cell else ''}{fault.what}"
        for reason, n in sorted(self.reasons.items()):
            yield f"  not scored from answers, {n} cell{'s' * (n != 1)}: {reason}"

    @property
    def faulty(self) -> set[str]:
        """Ids of cells of which a file has a fault."""
        return {fault.file.stem for fault in self.faults}

    def _counted(self) -> dict[Level, int]:
        found = list(self.levels.values())
        return {level: found.count(level) for level in LEVELS}

    def as_dict(self) -> dict[str, Any]:
        """Say the same for scripts."""
        return {
            "folder": str(self.folder),
            "sound": self.sound,
            "cells": dict(sorted(self.statuses.items())),
            "scored": self._counted(),
            "not_scored_from_answers": dict(sorted(self.reasons.items())),
            "faults": [{"file": str(f.file), "cell": f.cell, "fault": f.what} for f in self.faults],
        }


def require_results(folders: Iterable[Path]) -> list[Path]:
    """Folders of single suites at or below some folders; raises `UserError` for one without results."""
    found: list[Path] = []
    for folder in folders:
        places = stores(folder)
        if not places:
            raise UserError(f"no results in {folder}: expected a folder `records`, or folders of suites that have one")
        found += places
    return list(dict.fromkeys(found))


def verify(folder: Path, scorers: Scorers) -> FolderVerdict:
    """Look at the results of one suite; `folder` holds its `records` and `samples`."""
    return _Inspector(folder, scorers).verdict()


class _Inspector:
    """Looks at one folder; the tables of a benchmark are read one after the other, vanilla's first."""

    def __init__(self, folder: Path, scorers: Scorers) -> None:
        self._store, self._scorers, self._found = Store(folder, lambda line: None), scorers, FolderVerdict(folder)

    def verdict(self) -> FolderVerdict:
        records = list(self._records())
        self._found.statuses.update(record.status for record in records)
        sizes = dict.fromkeys(record.batch.requested for record in records if record.batch)
        for record in records:
            if not is_named_after_its_facts(record, sizes):
                self._blame(record, "its id is not the hash of what it says: something of it was changed")
            self._judge_status(record)
        for same in _groups(records, "model", "benchmark").values():
            self._judge_tables(sorted(same, key=lambda record: (record.pruner.name != "vanilla", record.cell_id)))
        for same in _groups(records, "model", "pruner", "budget", "benchmark").values():
            self._judge_seeds(same)
        self._judge_strays()
        return self._found

    def _records(self) -> Iterator[Record]:
        for path in sorted((self._store.folder / "records").glob("*.json")):
            try:
                record = load_record(path)
            except BadRecord as e:
                self._found.faults.append(Fault(path, "", str(e).removeprefix(f"{path}: ")))
                continue
            if record.cell_id == path.stem:
                yield record
            else:
                self._blame(record, f"holds the cell {record.cell_id}", path)

    def _judge_status(self, record: Record) -> None:
        if record.status == "ok" and (record.score is None or record.observed is None or record.samples_sha256 is None):
            self._blame(record, "is ok, and lacks a score, its token counts or a table of samples")
        if record.status == "ok" and not record.n:
            self._blame(record, "is ok, and has no samples")
        table = self._store.samples_path(record.cell_id)
        if record.status in ("infeasible", "unsupported") and table.exists():
            self._blame(record, f"its samples have answers, and the record says that it is {record.status}", table)

    def _judge_tables(self, records: Sequence[Record]) -> None:
        """Look at the tables of a model on a benchmark; all ask the same questions."""
        if records[0].pruner.name != "vanilla":
            self._blame(records[0], "there is no vanilla beside it: nothing to divide its score by")
        first: tuple[Record, dict[str, Sample]] | None = None
        for record in records:
            rows = self._rows(record)
            if rows is None:
                continue
            known = {row.sample: row for row in rows}
            first = first or (record, known)
            originals = {name: row.tokens for name, row in first[1].items()} if first[0].pruner.name == "vanilla" else {}
            told = [*count_faults(record, rows), *budget_faults(record, rows, originals), *_other_questions(known, *first)]
            for line in told:
                self._blame(record, line, self._store.samples_path(record.cell_id))
            if record.status == "ok":
                self._judge_score(record, rows)

    def _judge_score(self, record: Record, rows: Sequence[Sample]) -> None:
        again = self._scorers.rescore(record, rows)
        self._found.levels[record.cell_id] = again.level
        if again.why_not_more:
            self._found.reasons[again.why_not_more] += 1
        for line in again.faults:
            self._blame(record, line)

    def _rows(self, record: Record) -> list[Sample] | None:
        """Read the table of a record; None where it has none, or none that can be read."""
        path = self._store.samples_path(record.cell_id)
        data = read_regular(path)
        if record.samples_sha256 is None or data is None:
            if record.samples_sha256 is not None:
                self._blame(record, "the table of samples that the record names is not there", path)
            return None
        if table_hash(data) != record.samples_sha256:
            self._blame(record, "is not the table that the record names: it was changed, or is of another cell", path)
        try:
            frame = read_table(data)
        except BadRecord as e:
            self._blame(record, str(e), path)
            return None
        whole = frame.astype(object).where(frame.notna(), None)
        rows = [Sample(**row) for row in whole.to_dict("records")]
        if unknown := next((row.sample for row in rows if row.tokens is None), None):
            self._blame(record, f"question {unknown} has no count of tokens", path)
            return None
        return rows

    def _judge_seeds(self, records: Sequence[Record]) -> None:
        there, asked = {record.seed for record in records}, {seed for record in records for seed in record.seeds}
        if missing := sorted(asked - there):
            self._blame(records[0], f"there is no record of its row with seed {', '.join(map(str, missing))}")

    def _judge_strays(self) -> None:
        for path in sorted((self._store.folder / "samples").glob("*.parquet")):
            if not self._store.record_path(path.stem).exists():
                self._found.faults.append(Fault(path, "", "is a table of samples without a record"))

    def _blame(self, record: Record, what: str, file: Path | None = None) -> None:
        path = file or self._store.record_path(record.cell_id)
        self._found.faults.append(Fault(path, cell_name(record), what))


def _other_questions(rows: Mapping[str, Sample], other: Record, others: Mapping[str, Sample]) -> Iterator[str]:
    """Say where a table asks other questions than that of another record of the same model and benchmark."""
    gone, new = sorted(others.keys() - rows.keys()), sorted(rows.keys() - others.keys())
    if gone or new:
        what = f"no row of question {gone[0]}" if gone else f"a row of question {new[0]}"
        yield f"has {what}, unlike {cell_name(other)}"
    for row in rows.values():
        if (twin := others.get(row.sample)) is not None:
            shown = ("perceptual_hash",) if row.perceptual_hash and twin.perceptual_hash else ()
            facts, its = ({name: getattr(each, name) for name in (*ASKED, *shown)} for each in (row, twin))
            if told := next(differences(facts, its), None):
                yield f"question {row.sample} is another than that of {cell_name(other)}: {told}"
                return


def _groups(records: Iterable[Record], *parts: str) -> dict[str, list[Record]]:
    """Group records of the same versions by what some of their parts say, names for people and places left out."""
    found: dict[str, list[Record]] = {}
    for record in records:
        facts = [getattr(record, part).model_dump(mode="json", exclude={"label", "id"}) for part in parts]
        found.setdefault(json.dumps([facts, deciding_versions(record)], sort_keys=True), []).append(record)
    return found
