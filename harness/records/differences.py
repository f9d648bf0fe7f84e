"""Where two JSON-like values differ, in words; numbers that agree but for the last bits do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vtpbench.harness.records.record import agree


def differences(one: Any, other: Any, name: str = "") -> Iterator[str]:
    """Walk down two JSON-like values and name the places where they differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            yield from differences(one.get(key), other.get(key), f"{name} {key}".strip())
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        yield from differences(dict(enumerate(one)), dict(enumerate(other)), name)
    elif isinstance(one, float) and isinstance(other, float):
        if not agree(one, other):
            yield f"{name} {one:.10g} and {other:.10g}"
    elif one != other:
        yield f"{name} {_short(one)} and {_short(other)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
