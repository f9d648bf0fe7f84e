"""The journal of one cell: its answers on disk batch by batch, so that a killed run loses at most one batch."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtpbench.harness.host.files import writing
from vtpbench.harness.records.cell import Answer, KeptTokens


@dataclass(frozen=True)
class FileJournal:
    """Answers as JSON lines; implements `vtpbench.harness.records.cell.Journal`.

    The file belongs to one cell identity, so its answers are valid for every later attempt. A line that was cut off by
    a crash is no answer: its question is asked again.
    """

    path: Path

    def known(self) -> dict[str, Answer]:
        """Answers of an earlier, interrupted attempt, by sample."""
        if not self.path.exists():
            return {}
        answers = map(_parse, self.path.read_bytes().splitlines())
        return {answer.sample: answer for answer in answers if answer is not None}

    def add(self, answers: list[Answer]) -> None:
        """Write a finished batch to disk before returning; raises `StorageError` where the disk refuses."""
        lines = "".join(json.dumps(dataclasses.asdict(answer)) + "\n" for answer in answers)
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as stream:
                if _ends_torn(stream.fileno()):
                    stream.write(b"\n")  # else this batch's first line would be lost with the torn one
                stream.write(lines.encode())
                stream.flush()
                os.fsync(stream.fileno())

    def remove(self) -> None:
        """Forget the answers; the cell is recorded."""
        with writing(self.path):
            self.path.unlink(missing_ok=True)


def _ends_torn(file: int) -> bool:
    size = os.fstat(file).st_size
    return size > 0 and os.pread(file, 1, size - 1) != b"\n"


def _parse(line: bytes) -> Answer | None:
    try:
        entry = json.loads(line)
        return Answer(
            sample=entry["sample"],
            text=entry["text"],
            images=tuple(entry["images"]),
            original=tuple(entry["original"]),
            per_layer=tuple(map(tuple, entry["per_layer"])),
            kept=tuple(KeptTokens(**{name: _frozen(value) for name, value in image.items()}) for image in entry.get("kept", [])),
        )
    except (ValueError, KeyError, TypeError):  # cut off in the middle of a write
        return None


def _frozen(value: Any) -> Any:
    """Give lists back the type that they were written from."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
