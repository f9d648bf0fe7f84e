from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from vtpbench.harness.host import threads
from vtpbench.harness.host.threads import MOST, in_threads


@pytest.mark.parametrize("processors", [1, 3, 64])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 100])
def test_every_item_is_worked_on_once_in_its_order(monkeypatch: pytest.MonkeyPatch, processors: int, count: int) -> None:
    monkeypatch.setattr(threads, "processors", lambda: processors)
    runs = in_threads(list, range(count))
    assert [item for run in runs for item in run] == list(range(count))
    assert len(runs) <= min(processors, MOST)
    assert all(runs)


def test_runs_are_worked_on_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "processors", lambda: 4)
    all_here = threading.Barrier(4)
    assert len(in_threads(lambda run: all_here.wait(60), range(8))) == 4


def test_of_several_errors_the_first_in_order_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "processors", lambda: 4)

    def work(run: Sequence[int]) -> None:
        if run[0] > 1:
            raise ValueError(f"of {run[0]}")

    with pytest.raises(ValueError, match="of 2"):
        in_threads(work, range(8))


def test_there_is_a_processor() -> None:
    assert threads.processors() >= 1
