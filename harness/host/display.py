"""What commands that take long show: lines that stay, and on a terminal bars below them."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn

from vtpbench.harness.host.printable import one_line

D = TypeVar("D", bound="Display")


class Display:
    """Lines on a console; the bars, where there are any, are shown inside the context."""

    def __init__(self, console: Console, bars: Progress | None = None) -> None:
        self._console, self._shown = console, bars

    def __enter__(self: D) -> D:
        if self._shown:
            self._shown.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._shown:
            self._shown.stop()

    def note(self, text: str) -> None:
        """Show a line that stays."""
        self._console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)


def make_bars(console: Console, *columns: ProgressColumn, transient: bool = False) -> Progress:
    """Bars with a name, the count and a task's field `facts`; further columns follow."""
    count = TextColumn("{task.completed}/{task.total} {task.fields[facts]}")
    name = TextColumn("{task.description}")
    return Progress(name, BarColumn(30), count, *columns, console=console, transient=transient)
