from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest

from vtpbench.harness.gather.status import FolderStatus, examine
from vtpbench.harness.gather.status_text import status_lines
from vtpbench.harness.records.run_state import SILENT_S, RunState, WorkerState, read_states, write_state
from vtpbench.harness.records.store import Store
from vtpbench.harness.run.loop import run
from vtpbench.pruners.errors import UserError

SCRIPT = Path(__file__).parents[1] / "scripted_run.py"
scripted = SimpleNamespace(**run_path(str(SCRIPT)))


def look(folder: Path) -> FolderStatus:
    (status,) = examine(folder, pytest.fail)
    return status


def said(folder: Path) -> str:
    return "\n".join(status_lines(examine(folder, pytest.fail), 200))


def wait_for(folder: Path, answers: int) -> None:
    journals = folder / "toy" / "journal"
    while sum(path.read_bytes().count(b"\n") for path in journals.glob("*.jsonl")) < answers:
        time.sleep(0.02)


def a_state(**change: Any) -> RunState:
    worker = WorkerState(
        name="1", node="n1", pid=7, device="H100", doing="llava / gqa: questions 0 to 255", answers=60, answers_s=2.0
    )
    facts = {
        "host": "elsewhere",
        "pid": 7,
        "started": 1000.0,
        "updated": 1030.0,
        "state": "running",
        "cells": ["a", "b"],
        "ended": 1,
    }
    facts |= {"failed": {}, "answers": 60, "expected": 100, "left_s": 20.0, "workers": [worker]}
    return RunState.model_validate(facts | change)


def test_a_live_run_and_then_its_death_are_seen_from_another_process(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, str(SCRIPT), str(tmp_path), "2", "0.2"], stderr=subprocess.DEVNULL)
    try:
        wait_for(tmp_path, 8)
        live = look(tmp_path)
        assert set(live.begun.values()) == {None}, "a live run says it; journals may be large"
        (alive,) = live.alive
        assert (alive.state.pid, alive.state.host) == (process.pid, platform.node())
        assert len(alive.state.cells) == 2
        assert [(worker.name, worker.device) for worker in alive.state.workers] == [("1", "abacus")]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    journal = next((tmp_path / "toy" / "journal").glob("*.jsonl"))
    kept = journal.read_bytes().count(b"\n")
    with journal.open("ab") as stream:
        stream.write(b'{"sample": "torn')
    status = look(tmp_path)
    assert not status.alive, "at once: the system knows that the process is gone"
    assert status.begun == {journal.stem: kept}, "a line that was cut off is no answer"
    assert "gone without a word" in said(tmp_path)
    assert "nobody is writing; the same command again goes on" in said(tmp_path)


def test_a_finished_run_says_what_it_did_and_what_failed(tmp_path: Path) -> None:
    cells = [scripted.make_cell(), scripted.make_cell("defect"), scripted.make_cell("infeasible")]
    run(cells, scripted.make_setting(tmp_path))
    status = look(tmp_path)
    assert status.records == {"ok": 1, "failed": 1, "infeasible": 1}
    assert status.known == 3
    assert list(status.failed) == [str(cells[1])]
    assert status.failed[str(cells[1])].startswith("RuntimeError: index out of range")
    (finished,) = status.runs
    assert (finished.state.state, finished.state.ended, finished.alive) == ("finished", 3, False)
    assert finished.state.answers >= scripted.QUESTIONS
    assert "2 of 3 cells have a result, 1 failed, 1 begun" in said(tmp_path)


def test_the_next_run_takes_the_place_of_the_last_ones_word(tmp_path: Path) -> None:
    write_state(tmp_path / "toy", a_state(host=platform.node(), pid=2**22 + 5, started=time.time()))
    write_state(tmp_path / "toy", a_state(updated=time.time()))
    run([scripted.make_cell()], scripted.make_setting(tmp_path))
    assert {(state.host, state.pid) for state in read_states(tmp_path / "toy")} == {
        ("elsewhere", 7),
        (platform.node(), os.getpid()),
    }


def test_a_run_elsewhere_counts_as_alive_while_it_gives_word(tmp_path: Path) -> None:
    write_state(tmp_path, a_state())
    (fresh,) = examine(tmp_path, pytest.fail, now=1031.0)[0].runs
    assert fresh.alive
    (old,) = examine(tmp_path, pytest.fail, now=1031.0 + SILENT_S)[0].runs
    assert not old.alive


def test_the_number_of_a_process_that_is_another_by_now_is_no_sign_of_life(tmp_path: Path) -> None:
    write_state(tmp_path, a_state(host=platform.node(), pid=os.getpid(), started=1000.0))
    assert not look(tmp_path).alive


def test_lines_say_by_whom_how_fast_and_until_when(tmp_path: Path) -> None:
    write_state(tmp_path, a_state(failed={"llava / toy / gqa / seed 0": "out of memory"}))
    page = "\n".join(status_lines(examine(tmp_path, pytest.fail, now=1031.0), 200))
    assert "run on elsewhere, process 7: at it for 0:00:30; 60 of 100 answers, 1 of 2 cells" in page
    assert re.search(r"2\.0 answers a second; the answers take 0:00:20 more, until \d{4}-\d\d-\d\d \d\d:\d\d", page)
    assert re.search(r"1 +n1:7 +H100 +60 +2\.0 +llava / gqa: questions 0 to 255", page)
    assert "failed: llava / toy / gqa / seed 0: out of memory" in page


def test_a_file_that_is_no_word_of_a_run_is_left_out(tmp_path: Path) -> None:
    write_state(tmp_path, a_state())
    for n, text in enumerate(('{"host": "x"', "[]", "", "\0")):
        (tmp_path / "runs" / f"{n}.json").write_text(text)
    (tmp_path / "runs" / "folder.json").mkdir()
    assert [state.pid for state in read_states(tmp_path)] == [7]


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results in"):
        examine(tmp_path, pytest.fail)


def test_for_scripts_it_is_json(tmp_path: Path) -> None:
    write_state(tmp_path, a_state())
    read = json.loads(json.dumps([status.as_dict() for status in examine(tmp_path, pytest.fail, now=1031.0)]))
    assert read[0]["runs"][0]["workers"][0]["answers_s"] == 2.0
    assert read[0]["runs"][0]["alive"] is True


def test_neither_torch_nor_tables_are_imported() -> None:
    code = "import sys; import vtpbench.harness.gather.status_text, vtpbench.harness.cli.status; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pandas", "pyarrow", "transformers", "lmms_eval", "datasets", "rich"} & set(modules)


def test_answers_are_counted_as_they_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "toy", pytest.fail)
    cell = scripted.make_cell()
    assert store.kept_answers(cell.id) == 0
    store.journal(cell).add([scripted.Answer(str(n), "yes", (), (), ()) for n in range(3)])
    assert store.kept_answers(cell.id) == 3
