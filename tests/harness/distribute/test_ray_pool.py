"""The pool of workers on a Ray that is scripted: what it makes of what streams and actors tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vtpbench.harness.distribute import ray_pool
from vtpbench.harness.distribute.cluster import ClusterOptions
from vtpbench.harness.distribute.messages import Closed, CloseSweep, Lost, PartDone
from vtpbench.harness.distribute.ray_pool import RayPool
from vtpbench.harness.run.job import RunOptions


class ScriptedRay(SimpleNamespace):
    """Actors whose methods give streams of values, or of errors that are raised where they are got."""

    def __init__(self, *streams: list[Any]) -> None:
        method = SimpleNamespace(options=lambda **how: SimpleNamespace(remote=lambda *asked: self._next()))
        actor = SimpleNamespace(remote=lambda *asked: SimpleNamespace(ready=method, do=method))
        self._streams = iter(streams)
        super().__init__(init=lambda **how: None, shutdown=lambda: None, kill=lambda actor: None)
        self.remote = lambda kind: SimpleNamespace(options=lambda **need: actor)

    def _next(self) -> Iterator[Any]:
        return iter(next(self._streams))

    def wait(self, streams: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return streams[:num_returns], streams[num_returns:]

    def get(self, value: Any) -> Any:
        if isinstance(value, Exception):
            raise value
        return value


def test_a_worker_that_dies_behind_its_last_word_is_lost_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = RuntimeError("the actor died")
    scripted = ScriptedRay([PartDone(), dead], [dead], [Closed()])
    monkeypatch.setattr(ray_pool, "_import_ray", lambda: scripted)
    with RayPool("demo", RunOptions(tmp_path), ClusterOptions(workers=1), "cpu") as pool:
        assert list(pool.events()) == [("1", PartDone())]
        pool.start("1", CloseSweep())
        assert list(pool.events()) == [("1", Lost("the actor died"))]
        assert list(pool.events()) == [("2", Closed())], "the next is the worker in its place"
