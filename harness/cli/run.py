"""`vtpbench run`: measure what is missing of a suite, here or on several workers, whole or a shard of it."""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from vtpbench.harness.cli.arguments import BatchSize, Device, Dtype, Limit, Only, Out, Set, SuiteName
from vtpbench.harness.cli.report import RESULTS
from vtpbench.harness.distribute.cluster import ClusterOptions, cluster_options
from vtpbench.harness.host.console import console, echo, warn
from vtpbench.harness.host.printable import one_line
from vtpbench.harness.host.stopping import StopRequest, end_at_next_interrupt, parse_duration
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    from vtpbench.harness.run.job import Job, RunOptions
    from vtpbench.harness.run.shard_run import ShardSummary
    from vtpbench.harness.run.summary import Summary


def run_command(
    suite: SuiteName,
    only: Only = None,
    set_: Set = None,
    limit: Limit = None,
    batch_size: BatchSize = None,
    dtype: Dtype = None,
    device: Device = None,
    out: Out = RESULTS,
    gpus: Annotated[str | None, typer.Option(metavar="N|all", help="Share the work between GPUs, over Ray.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="With --device cpu: share it between processes, over Ray.")] = None,
    ray: Annotated[str | None, typer.Option(metavar="auto|ADDRESS", help="A running Ray cluster to use.")] = None,
    gpu_kind: Annotated[str | None, typer.Option(help="GPUs of a mixed cluster to use, as Ray names them: H100.")] = None,
    shard: Annotated[str | None, typer.Option(metavar="3/16", help="Only this part, into a folder for `merge`.")] = None,
    stop_after: Annotated[str | None, typer.Option(metavar="3h50m", help="Finish the batch then, and exit with code 75.")] = None,
) -> None:
    """Measure what is missing of a suite; interrupt it and run it again as you like."""
    from vtpbench.harness.run.job import Inspection, RunOptions, execute, execute_shard, make_job
    from vtpbench.harness.run.progress import make_progress
    from vtpbench.harness.run.shard import parse_shard

    options = RunOptions(out, only or (), set_ or (), limit, batch_size, dtype)
    cluster = cluster_options(gpus, workers, ray, gpu_kind, device)
    part = None if shard is None else parse_shard(shard)
    if part is not None and cluster is not None:
        raise UserError("--shard is for one device: give every GPU one of its own, or let --gpus, --ray or --workers share all")
    job = make_job(suite, options, warn, Inspection(gpu_bytes=partial(_gpu_bytes, device, cluster)))
    done: Summary | ShardSummary
    with StopRequest(None if stop_after is None else parse_duration(stop_after)).at_sigterm() as stop:
        if part is not None:
            done = execute_shard(job, part, device, make_progress(console(sys.stderr)), stop)
        elif cluster is not None:
            settled = dataclasses.replace(options, batch_size=job.suite.questions_together)  # a worker must not settle it anew
            done = _run_on_workers(job, suite, settled, cluster, device, stop)
        else:
            done = execute(job, device, make_progress(console(sys.stderr)), stop)
    for line in done.lines():
        echo(one_line(line))
    raise typer.Exit(done.exit_code)


def _gpu_bytes(device: str | None, cluster: ClusterOptions | None) -> float | None:
    """Memory of the GPU that batches are to fit; None where a processor answers."""
    import torch

    from vtpbench.harness.host.device import open_device
    from vtpbench.harness.run.batch_size import gpu_bytes

    if cluster is None:
        return gpu_bytes(open_device(device))
    if cluster.gpus == 0:
        return None
    if not torch.cuda.is_available():
        raise UserError("the suite leaves its batch size open, and this machine has no GPU to fit it to: name --batch-size N")
    return gpu_bytes(torch.device("cuda:0"))


def _run_on_workers(
    job: Job, suite: str, options: RunOptions, cluster: ClusterOptions, device: str | None, stop: StopRequest
) -> Summary:
    from vtpbench.harness.distribute.driver import run_distributed
    from vtpbench.harness.distribute.ray_pool import RayPool
    from vtpbench.harness.distribute.shared_progress import make_shared_progress
    from vtpbench.harness.host.threads import processors
    from vtpbench.harness.run.job import scorers_of

    scorers = None if cluster.gpus == 0 else scorers_of(job, processors())
    with RayPool(suite, options, cluster, device) as pool:
        try:
            return run_distributed(job, make_shared_progress(console(sys.stderr)), pool, stop, scorers)
        except KeyboardInterrupt:
            end_at_next_interrupt()  # Ray takes seconds to end its processes
            raise
