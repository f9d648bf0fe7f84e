"""Times as people read them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Write seconds as `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
