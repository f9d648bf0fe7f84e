"""JSON files with a checksum over every other field, so that a truncated or edited one is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from vtpbench.harness.migrate import Migration, UnknownSchema, upgrade


class Frozen(BaseModel):
    """Part of a record: complete, and unchangeable."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BadRecord(Exception):
    """A record file that cannot be trusted; the message says why."""


Sealed = TypeVar("Sealed", bound=Frozen)


def seal(record: Frozen) -> str:
    """Serialise with the checksum; the same record gives the same text."""
    body = record.model_dump(mode="json")
    return json.dumps({**body, "checksum": _checksum(body)}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def unseal(path: Path, kind: type[Sealed], version: int, migrations: Mapping[int, Migration]) -> Sealed:
    """Read a record, brought up to the schema version by migrations; raises `BadRecord` where it cannot be trusted or read."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as e:
        raise BadRecord(f"{path}: not readable as JSON (truncated?): {e}") from e
    if not isinstance(body, dict):
        raise BadRecord(f"{path}: not a record")
    if body.pop("checksum", None) != _checksum(body):
        raise BadRecord(f"{path}: the checksum does not match; the file was edited or damaged")
    try:
        return kind.model_validate(upgrade(body, version, migrations))
    except UnknownSchema as e:
        raise BadRecord(f"{path}: {e}") from e
    except ValidationError as e:
        raise BadRecord(f"{path}: {e.errors()[0]['loc']}: {e.errors()[0]['msg']}") from e


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
