"""The journal of one cell: its answers on disk batch by batch, so that a killed run loses at most one batch."""

from __future__ import annotations

import dataclasses
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from vtpbench.harness.host.files import read_regular, set_aside, writing
from vtpbench.harness.host.json_text import parse_json
from vtpbench.harness.records.cell import Answer
from vtpbench.harness.records.names import is_hash, is_sample_name
from vtpbench.harness.records.samples import as_count, kept_tokens
from vtpbench.pruners.errors import UserError

DEVICE = "device"


@dataclass(frozen=True)
class FileJournal:
    """Answers as JSON lines; implements `vtpbench.harness.records.cell.Journal`.

    The file belongs to one cell identity, after which it is named, so its answers are valid for every later attempt. Each
    line has a checksum over the identity and the answer. A line that was cut off by a crash, edited, damaged, or of another
    cell is no answer: its question is asked again. A line also says on what kind of device its answer was given: those of
    two kinds are not comparable, and no journal holds both.

    Attributes
    ----------
    device : kind of device that gives what is added, as `Environment.device_kind`; None = not said

    """

    path: Path
    device: str | None = None

    def known(self) -> dict[str, Answer]:
        """Answers of an earlier, interrupted attempt, by sample."""
        answers = (self._answer(line) for line in self._lines())
        return {answer.sample: answer for answer in answers if answer is not None}

    def damaged(self) -> int:
        """Count the lines that are no answers; one at the end that was cut off, as a crash does it, is none of these."""
        whole = [line for line in self._lines() if line.endswith(b"\n")]
        return sum(self._answer(line) is None for line in whole)

    def given_on(self) -> str | None:
        """Kind of device that has given the answers that are there; None where there are none, or none says so."""
        if not self.path.is_file():  # what is no file may wait for ever
            return None
        with suppress(OSError), self.path.open("rb") as stream:
            for line in stream:
                # Lines of earlier versions do not say it; those that were added to them do.
                if isinstance(kind := (self._body(line) or {}).get(DEVICE), str):
                    return kind
        return None

    def refuse_other_device(self) -> None:
        """Raise `UserError` where the answers that are there were given on another kind of device than those to come."""
        there = self.given_on()
        if there is not None and self.device is not None and there != self.device:
            raise UserError(
                f"the answers in {self.path} are of {there}, those of {self.device} would not be comparable: "
                f"use {there}, or another folder with --out"
            )

    def heal(self) -> Path:
        """Keep a damaged file beside a new one that has what can be read of it; returns where that is."""
        lines = [line.rstrip(b"\n") + b"\n" for line in self._lines() if self._answer(line) is not None]
        aside = set_aside(self.path)
        if lines:
            self._append(b"".join(lines))
        return aside

    def add(self, answers: list[Answer]) -> None:
        """Write a finished batch to disk before returning; raises `StorageError` where the disk refuses."""
        self._append("".join(self._line(answer) for answer in answers).encode())

    def _append(self, lines: bytes) -> None:
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as stream:
                if _ends_torn(stream.fileno()):
                    stream.write(b"\n")  # else this batch's first line would be lost with the torn one
                stream.write(lines)
                stream.flush()
                os.fsync(stream.fileno())

    def remove(self) -> None:
        """Forget the answers; the cell is recorded."""
        with writing(self.path):
            self.path.unlink(missing_ok=True)

    def _lines(self) -> list[bytes]:
        return (read_regular(self.path) or b"").splitlines(keepends=True)

    def _line(self, answer: Answer) -> str:
        body = {field.name: getattr(answer, field.name) for field in dataclasses.fields(answer)}
        if self.device is not None:
            body[DEVICE] = self.device
        body["kept"] = [dataclasses.asdict(kept) for kept in answer.kept]  # `asdict` of all copies every count
        return json.dumps({**body, "checksum": self._checksum(body)}) + "\n"

    def _answer(self, line: bytes) -> Answer | None:
        body = self._body(line)
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            return None if body is None else _parse(body)
        return None

    def _body(self, line: bytes) -> dict[str, Any] | None:
        """Read a line whose checksum is right; None for one that was cut off in the middle of a write, or is no journal's."""
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            body: dict[str, Any] = parse_json(line.decode())
            checksum = body.pop("checksum")
            return body if checksum == self._checksum(body) else None
        return None

    def _checksum(self, body: dict[str, Any]) -> str:
        return sha256(f"{self.path.stem}\0{json.dumps(body, sort_keys=True)}".encode()).hexdigest()[:16]


def _ends_torn(file: int) -> bool:
    size = os.fstat(file).st_size
    return size > 0 and os.pread(file, 1, size - 1) != b"\n"


def _parse(body: dict[str, Any]) -> Answer:
    """Make an answer of its JSON; raises `KeyError`, `TypeError` or `ValueError` where it is none."""
    answer = Answer(
        sample=body["sample"],
        text=body["text"],
        images=tuple(body["images"]),
        original=tuple(map(as_count, body["original"])),
        per_layer=tuple(tuple(map(as_count, counts)) for counts in body["per_layer"]),
        kept=tuple(map(kept_tokens, body["kept"])),
        finite=body["finite"],
        ended=body["ended"],
        written=as_count(body["written"]),
        perceptual_hash=body.get("perceptual_hash", ""),
    )
    texts = all(isinstance(text, str) for text in (answer.text, *answer.images))
    if answer.perceptual_hash and not is_hash(answer.perceptual_hash):
        raise ValueError("no perceptual hash")
    if not texts or not is_sample_name(answer.sample) or len(answer.original) != len(answer.per_layer):
        raise ValueError("no answer")
    return answer
