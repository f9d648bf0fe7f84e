"""Records of earlier schema versions, brought up to the present one when they are read; their files stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Body: TypeAlias = dict[str, Any]
Migration: TypeAlias = Callable[[Body], Body]
MIGRATIONS: Mapping[int, Migration] = {}
"""Of records of answers: from each earlier version, a pure function to the next, e.g. `{1: _name_the_scale}`."""


class UnknownSchema(Exception):
    """There is no way from a record's schema version to the present one; the message says why."""


def upgrade(body: Body, to: int, migrations: Mapping[int, Migration]) -> Body:
    """Apply one migration after the other; a body of version `to` comes back as it is.

    Raises `UnknownSchema` for a version that is newer, no number, or too old for there to be a migration.
    """
    version = body.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise UnknownSchema(f"schema {version!r} is no version number")
    if version > to:
        raise UnknownSchema(f"schema {version} is newer than {to}, which this version of vtpbench reads; upgrade vtpbench")
    for step in range(version, to):
        if step not in migrations:
            raise UnknownSchema(f"schema {version} is too old for this version of vtpbench, which reads {to}")
        body = {**migrations[step](dict(body)), "schema_version": step + 1}
    return body
