"""What `vtpbench run` shows while it works: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from time import monotonic

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as Bars

from vtpbench.harness.host.display import Display, make_bars
from vtpbench.harness.host.durations import duration
from vtpbench.harness.host.printable import one_line
from vtpbench.harness.records.cell import Cell
from vtpbench.harness.records.record import Record
from vtpbench.harness.records.run_state import RunState


class Pace:
    """Time that is left, from the cells that are finished: first from those of the same model and benchmark."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], list[float]] = {}

    def add(self, cell: Cell, seconds: float) -> None:
        """Count a finished cell."""
        self._seconds.setdefault(_kind(cell), []).append(seconds)

    def left_s(self, cell: Cell, elapsed_s: float, fraction: float, rest: Iterable[Cell], together: int = 1) -> float | None:
        """Seconds left; None while unknown.

        `cell`, or so many like it `together`, has taken `elapsed_s` for a fraction (0-1) of its samples.
        """
        known = {kind: fmean(seconds) for kind, seconds in self._seconds.items()}
        if fraction > 0:
            known.setdefault(_kind(cell), elapsed_s / fraction / together)
        if not known:
            return None
        usual = fmean(known.values())
        now = elapsed_s / fraction if fraction > 0 else together * known.get(_kind(cell), usual)
        return max(0.0, now - elapsed_s) + sum(known.get(_kind(other), usual) for other in rest)


class Progress(Display):
    """Plain lines: one as a cell begins, one as it ends."""

    def __init__(self, console: Console, bars: Bars | None = None) -> None:
        super().__init__(console, bars)
        self._pending: dict[str, Cell] = {}
        self._total = 0
        self._places: dict[str, str] = {}

    def start(self, cells: Iterable[Cell]) -> None:
        """Name the cells that the run will visit."""
        self._pending = {cell.id: cell for cell in cells}
        self._total = len(self._pending)

    def begin_sweep(self, cells: Sequence[Cell]) -> None:
        """Start to answer the questions of cells of one model and benchmark together."""
        self.note(sweep_name(cells))

    def begin(self, cell: Cell) -> None:
        """Start a cell."""
        self._pending.pop(cell.id, None)
        self._places.setdefault(cell.id, f"[{self._total - len(self._pending)}/{self._total}]")
        self.note(f"{self._places[cell.id]} {cell}")

    def begin_scoring(self, cell: Cell) -> None:
        """Let a cell whose questions are answered be scored beside what comes next."""
        self.begin(cell)

    def advance(self, done: int, total: int) -> None:
        """Count samples of the current cell: first those that an earlier attempt answered, then after each batch."""

    def wait_for_scores(self, cells: int) -> None:
        """Say that nothing is left but to score so many cells."""

    def workers(self, state: RunState) -> None:
        """Show how several workers stand, where a display has room for it."""

    def end(self, cell: Cell, record: Record) -> None:
        """Finish a cell."""
        self.note(f"{self._places.pop(cell.id, '')} {describe(record)}".lstrip())

    def skip(self, cell: Cell) -> None:
        """Leave out a cell that another run has finished meanwhile."""
        self._pending.pop(cell.id, None)
        self.note(f"{cell}: done by another run")


class LiveProgress(Progress):
    """Two bars below the finished cells: the run with its failures and time left, the current cell with its speed."""

    def __init__(self, console: Console) -> None:
        self._bars = make_bars(console, transient=True)
        super().__init__(console, self._bars)
        self._run = self._bars.add_task("cells", total=None, facts="")
        self._cell = self._bars.add_task("", total=None, visible=False, facts="")
        self._pace = Pace()
        self._now: Cell | None = None
        self._together: frozenset[str] = frozenset()
        self._each_s = 0.0
        self._begun = self._first_at = 0.0
        self._first: int | None = None
        self._sweeping = False
        self._beside: set[str] = set()
        self._failed = 0

    def start(self, cells: Iterable[Cell]) -> None:
        """Name the cells that the run will visit."""
        super().start(cells)
        self._bars.update(self._run, total=self._total)

    def begin_sweep(self, cells: Sequence[Cell]) -> None:
        """Start to answer the questions of cells of one model and benchmark together."""
        self._together, self._sweeping = frozenset(cell.id for cell in cells), True
        self._show(cells[0], sweep_name(cells))

    def begin(self, cell: Cell) -> None:
        """Start a cell; behind a sweep, to score it."""
        self._pending.pop(cell.id, None)
        self._beside.discard(cell.id)
        if self._sweeping:
            self._each_s, self._sweeping = (monotonic() - self._begun) / len(self._together), False
        self._show(cell, str(cell))

    def begin_scoring(self, cell: Cell) -> None:
        """Let a cell be scored beside what comes next, which alone is shown."""
        self._pending.pop(cell.id, None)
        self._beside.add(cell.id)

    def wait_for_scores(self, cells: int) -> None:
        """Show that nothing is left but to score so many cells."""
        self._bars.update(self._cell, visible=True, description=f"scoring {cells} cells", facts="")

    def _show(self, cell: Cell, name: str) -> None:
        self._now, self._begun, self._first = cell, monotonic(), None
        self._bars.reset(self._cell, total=None, visible=True, description=escape(one_line(name)), facts="preparing")
        self._show_run(0.0)

    def advance(self, done: int, total: int) -> None:
        """Count samples of the current cell."""
        if self._first is None:
            self._first, self._first_at = done, monotonic()
        speed = (done - self._first) / max(1e-9, monotonic() - self._first_at)
        self._bars.update(self._cell, completed=done, total=total, facts=f"samples, {speed:.1f}/s" if speed else "samples")
        # Answers that came from the journal took no time; the pace is that of the others.
        self._show_run((done - self._first) / max(1, total - self._first))

    def end(self, cell: Cell, record: Record) -> None:
        """Finish the current cell, or one that was scored beside it."""
        if record.status == "ok" and cell.id in self._beside and record.timing is not None:
            self._pace.add(cell, record.timing.generate_s)
        elif record.status == "ok":
            swept_s = self._each_s if cell.id in self._together else 0.0
            self._pace.add(cell, swept_s + monotonic() - self._begun)
        self._failed += record.status == "failed"
        self.note(f"{cell}: {describe(record)}")
        if cell.id not in self._beside:
            self._bars.update(self._cell, visible=False)
        self._beside.discard(cell.id)
        self._bars.update(self._run, completed=self._total - len(self._pending) - len(self._beside))

    def skip(self, cell: Cell) -> None:
        """Leave out a cell that another run has finished meanwhile."""
        super().skip(cell)
        self._bars.update(self._run, completed=self._total - len(self._pending))

    def _show_run(self, fraction: float) -> None:
        assert self._now is not None
        rest = [cell for cell in self._pending.values() if cell.id not in self._together]
        together = len(self._together) if self._sweeping else 1
        left = self._pace.left_s(self._now, monotonic() - self._begun, fraction, rest, together)
        facts = "" if left is None else f"{duration(left)} left"
        if self._failed:
            facts = f"[red]{self._failed} failed[/red] {facts}"
        self._bars.update(self._run, facts=facts)


def sweep_name(cells: Sequence[Cell]) -> str:
    """Name what is answered in one pass over the pictures."""
    return f"{cells[0].model.label} / {cells[0].benchmark.label}: {len(cells)} rows in one pass"


def make_progress(console: Console) -> Progress:
    """Live on a terminal, plain elsewhere."""
    return LiveProgress(console) if console.is_interactive else Progress(console)


def describe(record: Record) -> str:
    """One line on a finished cell."""
    if record.status != "ok":
        return f"{record.status}: {headline(record.reason)}"
    score = "no score" if record.score is None else f"{record.score:.1f}"
    seconds = "" if record.timing is None else f" in {record.timing.wall_s:.1f} s"
    left_out = f", {len(record.skipped)} left out that cannot be asked" if record.skipped else ""
    warnings = "".join(f"; warning: {remark}" for remark in record.remarks)
    return f"{score}, {record.n} samples{left_out}{seconds}{warnings}"


def headline(reason: str | None) -> str:
    """First line of a reason; a traceback follows after it."""
    return (reason or "no reason given").splitlines()[0]


def _kind(cell: Cell) -> tuple[str, str]:
    return cell.model.label, cell.benchmark.label
