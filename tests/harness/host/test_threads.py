from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import torch

from vtpbench.harness.host import threads
from vtpbench.harness.host.threads import MOST, in_threads, threads_beside


@pytest.mark.parametrize("count", [1, 3, 64])
@pytest.mark.parametrize("items", [0, 1, 2, 7, 8, 9, 100])
def test_every_item_is_worked_on_once_in_its_order(count: int, items: int) -> None:
    runs = in_threads(list, range(items), count)
    assert [item for run in runs for item in run] == list(range(items))
    assert len(runs) <= count
    assert all(runs)


def test_runs_are_worked_on_at_the_same_time() -> None:
    all_here = threading.Barrier(4)
    assert len(in_threads(lambda run: all_here.wait(60), range(8), 4)) == 4


def test_of_several_errors_the_first_in_order_is_raised() -> None:
    def work(run: Sequence[int]) -> None:
        if run[0] > 1:
            raise ValueError(f"of {run[0]}")

    with pytest.raises(ValueError, match="of 2"):
        in_threads(work, range(8), 4)


@pytest.mark.parametrize(("processors", "expected"), [(1, 1), (6, 6), (64, MOST)])
def test_a_model_on_the_processor_has_all_of_it(monkeypatch: pytest.MonkeyPatch, processors: int, expected: int) -> None:
    monkeypatch.setattr(threads, "processors", lambda: processors)
    assert threads_beside(torch.device("cpu")) == 1
    assert threads_beside(torch.device("cuda")) == expected


def test_there_is_a_processor() -> None:
    assert threads.processors() >= 1
