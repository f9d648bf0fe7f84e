"""What is said on a worker while it is at a cell: kept in a folder of its own until it is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from vtpbench.harness.host.libraries import output_to


class ToldOutput:
    """Logs below a folder, whose lines are handed on once.

    Parameters
    ----------
    folder : of this worker alone; made when something is said

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._told: Counter[str] = Counter()
        """Bytes of each log that were handed on."""

    def kept(self, log: str) -> AbstractContextManager[None]:
        """Keep what is printed, warned and logged, behind what was said before."""
        return output_to(self._folder / f"{log}.log", append=True)

    def new(self) -> Iterator[tuple[str, str]]:
        """Give the whole lines that have come since the last time, by the name of their log."""
        for path in sorted(self._folder.glob("*.log")):
            if path.stat().st_size == self._told[path.stem]:
                continue
            with path.open("rb") as stream:
                stream.seek(self._told[path.stem])
                lines, newline, _ = stream.read().rpartition(b"\n")
            if newline:
                self._told[path.stem] += len(lines) + 1
                yield path.stem, (lines + newline).decode(errors="replace")
