from __future__ import annotations

import io

from rich.console import Console

from vtpbench.harness.distribute.shared_progress import NAMED, SharedProgress, speeds
from vtpbench.harness.records.run_state import RunState, WorkerState


def a_state(workers: int, failed: int = 0) -> RunState:
    numbers = range(1, workers + 1)
    each = [WorkerState(name=str(n), node="n", pid=n, device="H100", answers=10 * n, answers_s=float(n)) for n in numbers]
    reasons = {f"cell {n}": "out of memory" for n in range(failed)}
    facts = {"host": "n", "pid": 1, "started": 0.0, "updated": 9.0, "state": "running", "cells": ["a", "b", "c"], "ended": 1}
    return RunState.model_validate(facts | {"failed": reasons, "answers": 60, "expected": 100, "left_s": 75.0, "workers": each})


def test_the_speed_of_each_is_said_while_they_are_few() -> None:
    assert speeds(a_state(1)) == "1 worker, 1.0/s"
    assert speeds(a_state(3)) == "3 workers, 6.0/s (1: 1.0, 2: 2.0, 3: 3.0)"
    assert speeds(a_state(NAMED + 1)) == f"{NAMED + 1} workers, 45.0/s"


def test_bars_show_cells_failures_time_left_and_speeds() -> None:
    page = io.StringIO()
    progress = SharedProgress(Console(file=page, force_terminal=True, width=120, color_system=None))
    with progress:
        progress.workers(a_state(2, failed=1))
        progress._bars.refresh()
    shown = page.getvalue()
    assert "1/3 1 failed 0:01:15 left" in shown
    assert "60/100 2 workers, 3.0/s (1: 1.0, 2: 2.0)" in shown
