"""What `vtpbench run` shows on a terminal while several workers share the questions."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console

from vtpbench.harness.host.display import make_bars
from vtpbench.harness.host.durations import duration
from vtpbench.harness.records.cell import Cell
from vtpbench.harness.records.record import Record
from vtpbench.harness.records.run_state import RunState
from vtpbench.harness.run.progress import Progress, describe

NAMED = 8
"""Workers whose speeds are shown one by one; of more the sum is."""


class SharedProgress(Progress):
    """Two bars below the finished cells: cells with failures and time left, answers with the speed of every worker."""

    def __init__(self, console: Console) -> None:
        self._bars = make_bars(console, transient=True)
        super().__init__(console, self._bars)
        self._run = self._bars.add_task("cells", total=None, facts="")
        self._answers = self._bars.add_task("answers", total=None, visible=False, facts="")

    def start(self, cells: Iterable[Cell]) -> None:
        """Name the cells that the run will visit."""
        super().start(cells)
        self._bars.update(self._run, total=self._total)

    def begin(self, cell: Cell) -> None:
        """Start to score a cell: no line of its own, others are scored at the same time."""
        self._pending.pop(cell.id, None)

    def end(self, cell: Cell, record: Record) -> None:
        """Finish a cell."""
        self.note(f"{cell}: {describe(record)}")

    def workers(self, state: RunState) -> None:
        """Show how all workers stand."""
        failed = f"[red]{len(state.failed)} failed[/red] " if state.failed else ""
        left = "" if state.left_s is None else f"{duration(state.left_s)} left"
        if not state.workers:
            left = "workers are starting"
        self._bars.update(self._run, completed=state.ended, total=len(state.cells), facts=f"{failed}{left}")
        if state.workers and state.expected is not None:
            facts = speeds(state)
            self._bars.update(self._answers, completed=state.answers, total=state.expected, facts=facts, visible=True)


def speeds(state: RunState) -> str:
    """Say how fast the workers are, in answers a second."""
    known = [worker for worker in state.workers if worker.answers_s is not None]
    count = "1 worker" if len(state.workers) == 1 else f"{len(state.workers)} workers"
    total = f"{count}, {sum(worker.answers_s or 0.0 for worker in known):.1f}/s"
    if not 1 < len(known) <= NAMED:
        return total
    return f"{total} ({', '.join(f'{worker.name}: {worker.answers_s:.1f}' for worker in known)})"


def make_shared_progress(console: Console) -> Progress:
    """Live on a terminal, plain lines elsewhere."""
    return SharedProgress(console) if console.is_interactive else Progress(console)
