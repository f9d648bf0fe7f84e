import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vtpbench.harness.host.stopping import StopRequest, TimeIsUp, parse_duration
from vtpbench.pruners.errors import UserError

SUITE = "models: [demo]\nmatrix: {pruners: [random], budgets: [12], seeds: [0, 1, 2], benchmarks: [demo-open]}\nbatch_size: 2\n"


@pytest.mark.parametrize(("text", "seconds"), [("3h50m", 13800), ("90m", 5400), ("45s", 45), ("45", 45), ("1h", 3600), ("0s", 0)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "3.5h", "-5m", "5 m 3", "5m3h"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match="3h50m, 90m or 45s"):
        parse_duration(text)


def test_a_stop_comes_with_its_time_or_with_sigterm() -> None:
    StopRequest().check()
    StopRequest(60).check()
    with pytest.raises(TimeIsUp):
        StopRequest(0).check()
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest().at_sigterm() as stop:
        stop.check()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(TimeIsUp):
            stop.check()
    assert signal.getsignal(signal.SIGTERM) is before


def start(suite: Path, *options: str) -> "subprocess.Popen[str]":
    command = [
        sys.executable,
        "-m",
        "vtpbench",
        "run",
        str(suite),
        "--out",
        str(suite.parent / "out"),
        "--device",
        "cpu",
        *options,
    ]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_run_ends_behind_its_batch_with_a_code_of_its_own_and_goes_on(tmp_path: Path) -> None:
    suite = tmp_path / "small.yaml"
    suite.write_text(SUITE)
    run = start(suite)
    journals = tmp_path / "out/small/journal"
    while run.poll() is None and not (journals.is_dir() and any(path.stat().st_size for path in journals.iterdir())):
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 75, said
    assert said.rstrip().endswith("what is finished is kept; run the same command again to go on")
    kept = {path.name: path.read_text() for path in journals.iterdir()}
    assert all(text.endswith("\n") for text in kept.values())
    again = start(suite, "--stop-after", "0s")
    _, said = again.communicate(timeout=120)
    assert again.returncode == 75, said
    assert all((journals / name).read_text().startswith(text) for name, text in kept.items())
