"""How a run went: what became of each cell, and the lines that say so at the end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from vtpbench.harness.host.durations import duration
from vtpbench.harness.records.cell import Cell
from vtpbench.harness.records.record import Record
from vtpbench.harness.run.progress import headline


@dataclass(frozen=True)
class CellVisit:
    """A cell of this run with its record, which another run may have written meanwhile."""

    cell: Cell
    record: Record
    elsewhere: bool = False


@dataclass(frozen=True)
class Summary:
    """How a run went; `before` cells had their record already."""

    visits: tuple[CellVisit, ...]
    before: int
    seconds: float
    folder: Path
    """Of the suite's results."""

    @property
    def exit_code(self) -> int:
        """1 if a cell failed."""
        return 1 if any(visit.record.status == "failed" for visit in self.visits) else 0

    def lines(self) -> list[str]:
        """Say at the end what failed and why, then the counts."""
        failed = [visit for visit in self.visits if visit.record.status == "failed"]
        lines = [f"failed: {v.cell}: {headline(v.record.reason)} ({self._files(v.cell)})" for v in failed]
        counts = Counter("done by another run" if visit.elsewhere else visit.record.status for visit in self.visits)
        counts["done before"] = self.before
        parts = [f"{counts[word]} {word}" for word in _WORDS if counts[word]]
        return [*lines, f"{len(self.visits) + self.before} cells: {', '.join(parts) or 'none'}; {duration(self.seconds)}"]

    def _files(self, cell: Cell) -> str:
        """Name the record of a cell, and the file of what was said where there is one."""
        log = self.folder / "logs" / f"{cell.id}.log"
        return f"{self.folder}/records/{cell.id}.json" + (f"; what was said: {log}" if log.exists() else "")


_WORDS = ("ok", "infeasible", "unsupported", "failed", "done by another run", "done before")
