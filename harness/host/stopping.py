"""A run that is to stop: at SIGTERM, which schedulers of clusters send before they kill, or after a time that the user names."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic

import psutil

from vtpbench.pruners.errors import UserError

INTERRUPTED = 130
"""Exit code of what Ctrl-C has ended."""
_DURATION = re.compile(r"(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m)?(?:(?P<s>\d+)s?)?")


class TimeIsUp(KeyboardInterrupt):
    """The run stops behind a finished batch, as it would at Ctrl-C; the same command goes on."""


class StopRequest:
    """Whether a run is to stop; `check` is called where it can.

    Parameters
    ----------
    after_s : seconds from now; None = until somebody says so

    """

    def __init__(self, after_s: float | None = None) -> None:
        self._at = None if after_s is None else monotonic() + after_s
        self._told = False

    def check(self) -> None:
        """Raise `TimeIsUp` if so."""
        if self._told or (self._at is not None and monotonic() >= self._at):
            raise TimeIsUp

    @contextmanager
    def at_sigterm(self) -> Iterator[StopRequest]:
        """Take SIGTERM as such a request meanwhile."""

        def note(number: int, frame: object) -> None:
            self._told = True

        before = signal.signal(signal.SIGTERM, note)
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, before)


def end_at_next_interrupt() -> None:
    """Let a further Ctrl-C end this process and those that it has started at once; for when all that counts is on the disk."""

    def end(number: int, frame: object) -> None:
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        os._exit(INTERRUPTED)

    signal.signal(signal.SIGINT, end)


def parse_duration(text: str) -> float:
    """Read `3h50m`, `90m`, `45s` or seconds; raises `UserError` for anything else."""
    found = _DURATION.fullmatch(text.strip())
    parts = {} if found is None else {unit: int(value) for unit, value in found.groupdict().items() if value}
    if not parts:
        raise UserError(f"--stop-after {text}: write a time such as 3h50m, 90m or 45s")
    return float(parts.get("h", 0) * 3600 + parts.get("m", 0) * 60 + parts.get("s", 0))
