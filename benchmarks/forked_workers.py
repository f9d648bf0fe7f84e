"""Workers of a distributed run as processes of this machine, without Ray: they start soon, as one process has imported all.

Tests and benchmarks use it to compare runs with several numbers of workers.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

from vtpbench.harness.distribute.messages import Event, Lost, Work
from vtpbench.harness.run.job import RunOptions

WAIT_S = 1.0


class ForkedPool:
    """Implements `vtpbench.harness.distribute.driver.WorkerPool` on the processor; one that dies is replaced.

    Parameters
    ----------
    suite, options : as the command line has them
    workers : how many

    """

    def __init__(self, suite: str, options: RunOptions, workers: int) -> None:
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(["vtpbench.harness.distribute.worker"])
        self._arguments, self._wanted = (suite, options), workers
        self._processes: dict[Hashable, Any] = {}
        self._connections: dict[Connection, Hashable] = {}
        self._started = 0

    def start(self, worker: Hashable, work: Work) -> None:
        """Let an idle worker do something."""
        connection = next(each for each, name in self._connections.items() if name == worker)
        with suppress(BrokenPipeError):  # it has died: the next look at its events says so
            connection.send(work)

    def events(self) -> Iterator[tuple[Hashable, Event]]:
        """Wait a little for what workers tell."""
        while len(self._processes) < self._wanted:
            self._start_one()
        for connection in wait(list(self._connections), WAIT_S):
            assert isinstance(connection, Connection), "nothing else is waited for"
            worker = self._connections[connection]
            try:
                event = connection.recv()
            except (EOFError, ConnectionError):
                del self._connections[connection]
                self._processes.pop(worker).join()
                event = Lost("its process is gone")
            yield worker, event

    def __enter__(self) -> ForkedPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._processes.values():
            process.kill()
            process.join()

    def _start_one(self) -> None:
        self._started += 1
        mine, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, os.getcwd(), *self._arguments), daemon=True)
        process.start()
        theirs.close()
        self._processes[f"{self._started}"] = process
        self._connections[mine] = f"{self._started}"


def _serve(connection: Connection, folder: str, suite: str, options: RunOptions) -> None:
    """Do what the driver asks for until it is gone."""
    import torch

    from vtpbench.harness.distribute.worker import Worker

    os.chdir(folder)
    torch.set_num_threads(1)
    worker = Worker(suite, options, "cpu")
    connection.send(worker.ready())
    while True:
        try:
            work = connection.recv()
        except EOFError:
            return
        for event in worker.do(work):
            connection.send(event)
