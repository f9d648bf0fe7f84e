"""Ctrl-C in a run over Ray: the first ends it, a second does not wait, and neither leaves a process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

LONGEST_S = 120.0
"""For what takes seconds on a machine that is not busy."""


def test_a_second_interrupt_ends_a_run_on_workers_at_once_and_leaves_no_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vtpbench", "run", "demo", "--workers", "1", "--device", "cpu", "--out", str(tmp_path)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until = time.monotonic() + LONGEST_S
    while not (tmp_path / "demo" / "runs").is_dir():  # the run has begun, and Ray with it
        assert run.poll() is None
        assert time.monotonic() < until
        time.sleep(0.1)
    children = psutil.Process(run.pid).children(recursive=True)
    assert any("raylet" in child.name() for child in children)
    while run.poll() is None:
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does it: all processes of the group hear it
        time.sleep(0.2)
    _, said = run.communicate()
    assert run.returncode == 130
    assert "stopped" not in said, "that is said when Ray has ended its processes"
    _, left = psutil.wait_procs(children, LONGEST_S)
    assert not left
