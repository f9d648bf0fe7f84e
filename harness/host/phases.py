"""What a long command shows while it works through its phases: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from time import monotonic

from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import TaskID, TimeRemainingColumn

from vtpbench.harness.host.display import Display, make_bars

PAUSE_S = 30.0


class Phases(Display):
    """Plain lines: as a phase begins and ends, and every half minute between."""

    def __init__(self, console: Console, bars: Bars | None = None) -> None:
        super().__init__(console, bars)
        self._phase = ""
        self._said = 0.0

    def advance(self, phase: str, done: int, total: int, facts: str = "") -> None:
        """Say how far a phase is; another phase than before begins."""
        if phase != self._phase or done == total or monotonic() - self._said >= PAUSE_S:
            self._phase, self._said = phase, monotonic()
            self.note(f"{phase}: {done}/{total} {facts}".rstrip())


class LivePhases(Phases):
    """One bar per phase, below the lines that stay."""

    def __init__(self, console: Console) -> None:
        self._bars = make_bars(console, TimeRemainingColumn())
        super().__init__(console, self._bars)
        self._tasks: dict[str, TaskID] = {}

    def advance(self, phase: str, done: int, total: int, facts: str = "") -> None:
        """Move the bar of a phase."""
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase, total=total, facts="")
        self._bars.update(self._tasks[phase], completed=done, total=total, facts=facts)


def make_phases(console: Console) -> Phases:
    """Live on a terminal, plain elsewhere."""
    return LivePhases(console) if console.is_interactive else Phases(console)
