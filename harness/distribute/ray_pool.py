"""Workers as Ray actors: one for each GPU of this machine or of a cluster, or several on the CPU."""

from __future__ import annotations

import os
import time
from collections.abc import Hashable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from vtpbench.harness.distribute.cluster import ClusterOptions
from vtpbench.harness.distribute.messages import Event, Lost, Work
from vtpbench.harness.run.job import RunOptions
from vtpbench.pruners.errors import UserError

WAIT_S = 1.0
"""Seconds after which the pool looks for new nodes while nobody tells anything."""
IN_FLIGHT = 8
"""Events of a worker that wait to be taken: then it waits itself."""
STARTS = 3
"""Times that Ray is started on this machine: a busy one may need longer than Ray waits."""
UNLUCKY = 3
"""Workers in succession that die before they are ready: then no more are started in their place."""


def _actor_class(ray: Any) -> Any:
    class RayWorker:
        """A `Worker` in a process of its own."""

        def __init__(self, folder: str, suite: str, options: RunOptions, device: str | None) -> None:
            with suppress(OSError):  # where the driver's folder is there, names of files in a suite mean the same
                os.chdir(folder)
            from vtpbench.harness.distribute.worker import Worker

            self._worker = Worker(suite, options, device)

        def ready(self) -> Iterator[Event]:
            yield self._worker.ready()

        def do(self, work: Work) -> Iterator[Event]:
            yield from self._worker.do(work)

    return ray.remote(RayWorker)


class RayPool:
    """Implements `vtpbench.harness.distribute.driver.WorkerPool`; to be closed.

    Raises `UserError` where Ray is not installed, or no cluster answers.
    """

    def __init__(self, suite: str, options: RunOptions, cluster: ClusterOptions, device: str | None) -> None:
        self._ray = ray = _import_ray()
        self._arguments = os.getcwd(), suite, options, device if cluster.gpus == 0 else None
        self._cluster = cluster
        _join(ray, cluster)
        self._actor = _actor_class(ray)
        self._actors: dict[Hashable, Any] = {}
        self._telling: dict[Any, Hashable] = {}
        self._started, self._unlucky, self._reason = 0, 0, ""
        self._fresh: set[Hashable] = set()

    def start(self, worker: Hashable, work: Work) -> None:
        """Let an idle worker do something."""
        self._listen(worker, self._actors[worker].do, work)

    def events(self) -> Iterable[tuple[Hashable, Event]]:
        """Wait a little for what workers tell."""
        self._keep_up()
        if not self._telling:
            time.sleep(WAIT_S)  # Ray would not wait for nothing
        ready, _ = self._ray.wait(list(self._telling), num_returns=1, timeout=WAIT_S)
        for stream in ready:
            worker = self._telling[stream]
            try:
                event = self._ray.get(next(stream))
            except StopIteration:
                del self._telling[stream]
            except Exception as e:  # the actor died, or nothing can be done on its device any more
                yield worker, self._bury(worker, e)
            else:
                self._fresh.discard(worker)
                self._unlucky = 0
                yield worker, event

    def close(self) -> None:
        """End the workers, and Ray where it was started here."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._ray.shutdown()

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _listen(self, worker: Hashable, method: Any, *arguments: Any) -> None:
        streaming = method.options(num_returns="streaming", _generator_backpressure_num_objects=IN_FLIGHT)
        self._telling[streaming.remote(*arguments)] = worker

    def _bury(self, worker: Hashable, error: Exception) -> Lost:
        # It may have two: of what it has told the end is still to come, and it was sent something else already.
        self._telling = {stream: whose for stream, whose in self._telling.items() if whose != worker}
        self._ray.kill(self._actors.pop(worker))
        cause = getattr(error, "cause", None)
        if worker in self._fresh and isinstance(cause, UserError):
            raise UserError(str(cause)) from error  # the suite cannot be planned there, nor would it be by another
        self._unlucky += worker in self._fresh
        first = next((line for line in str(cause or error).splitlines() if line.strip()), "no reason given")
        self._reason = first if cause is None else f"{type(cause).__name__}: {first}"
        return Lost(self._reason)

    def _keep_up(self) -> None:
        """Start workers where there is room for more: at first, in place of those that died, on nodes that have joined."""
        if self._unlucky >= UNLUCKY:
            if not self._actors:
                raise UserError(f"{UNLUCKY} workers in succession died before they were ready: {self._reason}")
            return
        for _ in range(self._wanted() - len(self._actors)):
            self._started += 1
            worker = f"{self._started}"
            need: dict[str, Any] = {"num_cpus": 1, "num_gpus": 0 if self._cluster.gpus == 0 else 1}
            if self._cluster.gpu_kind is not None:
                need["accelerator_type"] = self._cluster.gpu_kind
            self._actors[worker] = self._actor.options(**need).remote(*self._arguments)
            self._fresh.add(worker)
            self._listen(worker, self._actors[worker].ready)

    def _wanted(self) -> int:
        if self._cluster.gpus == 0:
            return self._cluster.workers
        there = int(self._ray.cluster_resources().get("GPU", 0))
        wanted = there if self._cluster.gpus is None else min(there, self._cluster.gpus)
        if not wanted and not self._actors:
            raise UserError("Ray finds no GPU; name --workers N --device cpu to run on the processor")
        return wanted


def _join(ray: Any, cluster: ClusterOptions) -> None:
    """Start Ray on this machine, or join the cluster that is named."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    cpus = {"num_cpus": cluster.workers} if cluster.gpus == 0 else {}
    here = {"address": "local", "include_dashboard": False, **cpus}  # also where a cluster is running on this machine
    where = here if cluster.address is None else {"address": cluster.address}
    for tries_left in range(STARTS - 1 if cluster.address is None else 0, -1, -1):
        try:
            ray.init(**where, **quiet)
            return
        except Exception as e:  # of Ray's own, mostly without a type: its processes are not there after half a minute
            ray.shutdown()
            if not tries_left:
                first = next((line for line in str(e).splitlines() if line.strip()), type(e).__name__)
                raise UserError(f"Ray cannot be reached ({first}); see docs/cluster.md") from e


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as e:
        raise UserError("several workers need Ray: pip install 'vtpbench[ray]'") from e
    return ray
