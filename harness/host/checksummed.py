"""JSON files with a checksum over every other field, so that a truncated or edited one is noticed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from vtpbench.harness.host.json_text import BadJson, load_json


class Frozen(BaseModel):
    """Part of a record: complete, and unchangeable; its numbers are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BadRecord(Exception):
    """A record file that cannot be trusted; the message says why."""


Checksummed = TypeVar("Checksummed", bound=Frozen)


def dump_checksummed(record: Frozen) -> str:
    """Serialise with the checksum; the same record gives the same text."""
    body = record.model_dump(mode="json")
    return json.dumps({**body, "checksum": _checksum(body)}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def load_checksummed(path: Path, kind: type[Checksummed], version: int) -> Checksummed:
    """Read a record of a schema version; raises `BadRecord` where it cannot be trusted, read, or is of another version."""
    try:
        body = load_json(path)
    except BadJson as e:
        raise BadRecord(f"{path}: {e}") from e
    if not isinstance(body, dict):
        raise BadRecord(f"{path}: not a record")
    if body.pop("checksum", None) != _checksum(body):
        raise BadRecord(f"{path}: the checksum does not match; the file was edited or damaged")
    if body.get("schema_version") != version:
        raise BadRecord(f"{path}: schema {body.get('schema_version')!r:.20}, this version of vtpbench reads {version}")
    try:
        return kind.model_validate(body)
    except ValidationError as e:
        raise BadRecord(f"{path}: {e.errors()[0]['loc']}: {e.errors()[0]['msg']}") from e


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
