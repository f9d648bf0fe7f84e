"""How the runs into a folder of results stand, from what they have written: records, journals, and word of themselves.

Nothing is imported but what reads these files, so that it answers at once.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtpbench.harness.records.cell import cell_name
from vtpbench.harness.records.folders import stores
from vtpbench.harness.records.run_state import FOLDER, RunState, read_states
from vtpbench.harness.records.store import Store
from vtpbench.pruners.errors import UserError


@dataclass(frozen=True)
class RunStatus:
    """A run, and whether it is still there."""

    state: RunState
    alive: bool
    silent_s: float
    """Seconds since it gave word."""


@dataclass(frozen=True)
class FolderStatus:
    """Results of one suite, or of a shard.

    Attributes
    ----------
    folder : of the results
    known : cells that there are records, answers or runs of
    records : cells with a record, by its status
    failed : first lines of reasons, by cell
    begun : cells without a result that have answers; with how many, unless a live run says so: journals may be large
    runs : that have left word, the last started first

    """

    folder: Path
    known: int
    records: dict[str, int]
    failed: dict[str, str]
    begun: dict[str, int | None]
    runs: list[RunStatus]

    @property
    def alive(self) -> list[RunStatus]:
        """Runs that are at work now."""
        return [run for run in self.runs if run.alive]

    def as_dict(self) -> dict[str, Any]:
        """Say the same for scripts."""
        return {
            "folder": str(self.folder),
            "cells": self.known,
            "records": self.records,
            "failed": self.failed,
            "begun": self.begun,
            "runs": [{"alive": run.alive, "silent_s": run.silent_s, **run.state.model_dump(mode="json")} for run in self.runs],
        }


def examine(folder: Path, warn: Callable[[str], None], now: float | None = None) -> list[FolderStatus]:
    """Look at the results of a suite with its shards, or at those of all suites below a folder; `now` is in seconds since 1970.

    Raises `UserError` where there are none.
    """
    found = [_status(place, warn, time.time() if now is None else now) for place in _places(folder)]
    if not found:
        raise UserError(f"no results in {folder}: name a folder that `vtpbench run` writes, such as results/demo")
    return found


def _places(folder: Path) -> list[Path]:
    """Folders that a run has written to."""
    begun = (path.parent for name in ("journal", FOLDER) for path in sorted(folder.rglob(name)) if path.is_dir())
    return list(dict.fromkeys([*stores(folder), *begun]))


def _status(folder: Path, warn: Callable[[str], None], now: float) -> FolderStatus:
    store = Store(folder, warn)
    records = store.records()
    failed = [record for record in records if record.status == "failed"]
    results = {record.cell_id for record in records if record.status != "failed"}
    host = platform.node()
    runs = [RunStatus(state, state.is_alive(host, now), max(0.0, now - state.updated)) for state in read_states(folder)]
    journals = sorted((folder / "journal").glob("*.jsonl"))
    counting = not any(run.alive for run in runs)
    open_cells = [path.stem for path in journals if path.stem not in results]
    begun = {cell: store.kept_answers(cell) if counting else None for cell in open_cells}
    named = {record.cell_id for record in records} | set(begun) | {cell for run in runs[:1] for cell in run.state.cells}
    return FolderStatus(
        folder,
        len(named),
        dict(Counter(record.status for record in records)),
        {cell_name(record): (record.reason or "no reason given").splitlines()[0] for record in failed},
        begun,
        runs,
    )
