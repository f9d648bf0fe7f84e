"""What a folder of answers says about the shards in it: which part of the questions, given on what kind of device.

A shard's own folder has no records: its answers lie in journals, as those of a run that was interrupted do. `vtpbench merge`
brings them into the results of the suite, where a run finds them, and scores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from vtpbench.harness.host.checksummed import Frozen
from vtpbench.harness.host.files import read_regular, write_atomic
from vtpbench.harness.records.names import SuiteName
from vtpbench.pruners.errors import UserError

FILE = "shards.json"
MOST = 10_000
"""Shards of one suite."""


class ShardNote(Frozen):
    """Which parts of how many the answers of a folder are.

    Attributes
    ----------
    device : kind of device that gave them all: `CPU`, or the GPU's name
    parts : from 1 to `of`; those that were begun
    whole : those of the parts in which every row has all its answers

    """

    suite: SuiteName
    of: Annotated[int, Field(ge=1, le=MOST)]
    parts: tuple[int, ...]
    whole: tuple[int, ...]
    device: str

    def joined(self, other: ShardNote) -> ShardNote:
        """Add the parts of another folder."""
        parts, whole = ({*mine, *theirs} for mine, theirs in ((self.parts, other.parts), (self.whole, other.whole)))
        return self.model_copy(update={"parts": tuple(sorted(parts)), "whole": tuple(sorted(whole))})


def read_note(folder: Path) -> ShardNote | None:
    """Read the note of a folder; None where there is none. Raises `UserError` for one that cannot be read."""
    path = folder / FILE
    data = read_regular(path)
    if data is None:
        return None
    try:
        return ShardNote.model_validate_json(data)
    except ValidationError as e:
        raise UserError(f"{path} is damaged; remove it with its folder, and run the shard again") from e


def write_note(folder: Path, note: ShardNote) -> None:
    """Write the note of a folder."""
    write_atomic(folder / FILE, note.model_dump_json(indent=1).encode())


def shard_folders(folder: Path) -> list[Path]:
    """Folders of single shards at or below a folder; results that shards were joined in are none, they have records."""
    return [path.parent for path in sorted(folder.rglob(FILE)) if path.parent.parent.name == "shards"]
