"""What a run says of itself while it works: a small file in the folder of results, replaced as a whole every few seconds.

`runs/<machine>-<process>.json` is for whoever looks from another shell, `vtpbench status`; nothing else reads it, and no result
rests on it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psutil
from pydantic import ValidationError

from vtpbench.harness.host.checksummed import Frozen
from vtpbench.harness.host.files import read_regular, write_atomic

FOLDER = "runs"
EVERY_S = 5.0
"""Seconds between two versions of the file."""
SILENT_S = 60.0
"""Seconds without a new version after which a run on another machine counts as dead."""


class WorkerState(Frozen):
    """One worker, or the run itself where it has none."""

    name: str
    node: str
    pid: int
    device: str
    doing: str = ""
    answers: int = 0
    """That it has given in this run."""
    answers_s: float | None = None
    """A second, over the last minutes; None before the first."""


class RunState(Frozen):
    """A run as it stands."""

    host: str
    pid: int
    started: float
    """Seconds since 1970, as `updated`."""
    updated: float
    state: Literal["running", "finished", "stopped"]
    cells: list[str]
    """Ids of those that it does."""
    ended: int
    """How many of these have a record, or have failed."""
    failed: dict[str, str]
    """First lines of reasons, by cell as the run names it."""
    answers: int
    """Of its cells that are on disk, also from earlier attempts."""
    expected: int | None
    """Answers when all is done; None while unknown."""
    left_s: float | None
    """Seconds until all are there, at the speed of the last minutes; None while unknown."""
    shard: str | None = None
    workers: list[WorkerState]

    def is_alive(self, host: str, now: float) -> bool:
        """Whether somebody still writes: as the system says on the same machine, else as the age of the file does."""
        if self.state != "running":
            return False
        if self.host != host:
            return now - self.updated < SILENT_S
        try:
            return bool(psutil.Process(self.pid).create_time() <= self.started + SILENT_S)  # else the number is another's by now
        except psutil.Error:
            return False


def state_path(folder: Path, host: str, pid: int) -> Path:
    """File of a run in the results of a suite."""
    return folder / FOLDER / f"{re.sub(r'[^A-Za-z0-9.-]', '_', host)}-{pid}.json"


def write_state(folder: Path, state: RunState) -> None:
    """Replace the file of a run."""
    write_atomic(state_path(folder, state.host, state.pid), state.model_dump_json(indent=1).encode())


def read_states(folder: Path) -> list[RunState]:
    """All runs that have left word in the results of a suite, the last started first; what cannot be read is left out."""
    return sorted((state for _, state in _states(folder)), key=lambda state: -state.started)


def forget_ended(folder: Path, host: str) -> None:
    """Remove the files of runs that are over: a new one begins."""
    for path, state in _states(folder):
        if not state.is_alive(host, time.time()):
            with suppress(OSError):  # another run that begins may do the same
                path.unlink()


def _states(folder: Path) -> Iterator[tuple[Path, RunState]]:
    for path in sorted((folder / FOLDER).glob("*.json")):
        data = read_regular(path)
        with suppress(ValidationError):
            yield path, RunState.model_validate_json(data or b"")
