"""What a long command shows while it works through its phases: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from time import monotonic
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

PAUSE_S = 30.0


class Phases:
    """Plain lines: as a phase begins and ends, and every half minute between."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._said = 0.0

    def __enter__(self) -> Phases:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        del kind, error, trace

    def advance(self, phase: str, done: int, total: int, facts: str = "") -> None:
        """Say how far a phase is; another phase than before begins."""
        if phase != self._phase or done == total or monotonic() - self._said >= PAUSE_S:
            self._phase, self._said = phase, monotonic()
            self.note(f"{phase}: {done}/{total} {facts}".rstrip())

    def note(self, text: str) -> None:
        """Show a line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class LivePhases(Phases):
    """One bar per phase, below the lines that stay."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        numbers = TextColumn("{task.completed}/{task.total} {task.fields[facts]}")
        self._bars = Bars(TextColumn("{task.description}"), BarColumn(30), numbers, TimeRemainingColumn(), console=console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Phases:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.stop()

    def advance(self, phase: str, done: int, total: int, facts: str = "") -> None:
        """Move the bar of a phase."""
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase, total=total, facts="")
        self._bars.update(self._tasks[phase], completed=done, total=total, facts=facts)


def make_phases(console: Console) -> Phases:
    """Live on a terminal, plain elsewhere."""
    return LivePhases(console) if console.is_interactive else Phases(console)
