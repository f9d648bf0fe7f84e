"""The status of folders of results as lines for people."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from vtpbench.harness.gather.status import FolderStatus, RunStatus
from vtpbench.harness.host.durations import duration
from vtpbench.harness.host.printable import one_line
from vtpbench.harness.host.text_grid import text_grid
from vtpbench.harness.records.run_state import RunState

HEADING = ("worker", "process", "device", "answers", "a second", "at")


def status_lines(folders: Iterable[FolderStatus], width: int) -> list[str]:
    """Say how each folder stands; `width` is in columns of the page."""
    return [line for folder in folders for line in _folder(folder, width)]


def _folder(status: FolderStatus, width: int) -> list[str]:
    lines = [one_line(f"{status.folder}: {_cells(status)}")]
    for run in status.alive or status.runs[:1]:
        lines += [f"  {line}" for line in _run(run)]
        if run.alive and run.state.workers:
            lines += [f"    {line}" for line in text_grid(_workers(run.state), width - 4)]
    if not status.alive:
        lines.append(f"  {_advice(status)}")
    failed = status.failed | {cell: reason for run in status.alive for cell, reason in run.state.failed.items()}
    return [*lines, *(one_line(f"  failed: {cell}: {reason}") for cell, reason in failed.items())]


def _cells(status: FolderStatus) -> str:
    results = sum(n for word, n in status.records.items() if word != "failed")
    parts = [f"{results} of {status.known} cells have a result"]
    if failed := status.records.get("failed"):
        parts.append(f"{failed} failed")
    if status.begun:
        answers = sum(n or 0 for n in status.begun.values())
        parts.append(f"{len(status.begun)} begun" + ("" if status.alive else f", with {answers:,} answers"))
    return ", ".join(parts)


def _run(run: RunStatus) -> list[str]:
    state = run.state
    shard = "" if state.shard is None else f" (shard {state.shard})"
    who = one_line(f"run{shard} on {state.host}, process {state.pid}")
    of = "" if state.expected is None else f" of {state.expected:,}"
    came = f"{state.answers:,}{of} answers, {state.ended} of {len(state.cells)} cells"
    if not run.alive:
        how = {"running": "gone without a word, last heard of", "finished": "finished", "stopped": "stopped"}[state.state]
        return [f"{who}: {how} {duration(run.silent_s)} ago, after {duration(state.updated - state.started)}; {came}"]
    speed = sum(worker.answers_s or 0.0 for worker in state.workers)
    return [f"{who}: at it for {duration(state.updated - state.started)}; {came}", f"{speed:.1f} answers a second; {_end(state)}"]


def _end(state: RunState) -> str:
    if state.left_s is None:
        return "how long it takes is not known yet"
    if state.expected is not None and state.answers >= state.expected:
        return "all are answered, cells are being scored"
    end = datetime.fromtimestamp(state.updated + state.left_s)
    return f"the answers take {duration(state.left_s)} more, until {end:%Y-%m-%d %H:%M}"


def _workers(state: RunState) -> list[list[str]]:
    rows = [
        [
            worker.name,
            f"{worker.node}:{worker.pid}",
            worker.device,
            f"{worker.answers:,}",
            "" if worker.answers_s is None else f"{worker.answers_s:.1f}",
            worker.doing,
        ]
        for worker in state.workers
    ]
    return [[one_line(cell) for cell in row] for row in [list(HEADING), *rows]]


def _advice(status: FolderStatus) -> str:
    last = status.runs[0].state if status.runs else None
    unfinished = status.begun or status.records.get("failed") or (last is not None and last.ended < len(last.cells))
    if last is not None and last.shard is not None and last.state == "finished":
        return "nobody is writing; `vtpbench merge` joins the shards"
    return "nobody is writing; the same command again goes on" if unfinished else "nobody is writing, nothing is unfinished"
