from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
from rich.console import Console

from vtpbench.harness.host.device import DeviceLost
from vtpbench.harness.host.files import StorageError
from vtpbench.harness.run.loop import run
from vtpbench.harness.run.pictures import PictureFolder
from vtpbench.harness.run.progress import LiveProgress, Pace
from vtpbench.pruners.errors import UserError

SCRIPT = Path(__file__).parents[1] / "scripted_run.py"
scripted = SimpleNamespace(**run_path(str(SCRIPT)))


def start(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), str(folder), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def asked(folder: Path) -> Counter[str]:
    log = folder / "asked.log"
    return Counter(log.read_text().splitlines() if log.exists() else [])


def test_a_second_run_does_only_what_is_missing(tmp_path: Path):
    cells = [scripted.make_cell("vanilla"), scripted.make_cell("random")]
    first = run(cells, scripted.make_setting(tmp_path))
    second = run([*cells, scripted.make_cell("random", tokens=2)], scripted.make_setting(tmp_path))
    assert (first.exit_code, len(first.visits), first.before) == (0, 2, 0)
    assert (second.exit_code, len(second.visits), second.before) == (0, 1, 2)
    assert set(asked(tmp_path).values()) == {1}
    assert re.fullmatch(r"3 cells: 1 ok, 2 done before; 0:00:0\d", second.lines()[-1])


def test_what_goes_wrong_in_a_cell_is_recorded_and_the_run_goes_on(tmp_path: Path):
    names = ["defect", "infeasible", "unsupported", "mistake", "random"]
    summary = run([scripted.make_cell(name) for name in names], scripted.make_setting(tmp_path))
    records = {visit.cell.pruner.name: visit.record for visit in summary.visits}
    assert [records[name].status for name in names] == ["failed", "infeasible", "unsupported", "failed", "ok"]
    assert re.match(r"RuntimeError: index out of range, at scripted_run\.py:\d+\n", records["defect"].reason)
    assert "in go_wrong" in records["defect"].reason, "the traceback is kept"
    assert records["mistake"].reason == "option 'x' must be positive"
    assert summary.exit_code == 1
    assert summary.lines()[0].startswith("failed: toy / defect @ 4 / exist / seed 0: RuntimeError: index out of range")
    assert summary.lines()[-1].startswith("5 cells: 1 ok, 1 infeasible, 1 unsupported, 2 failed; ")


@pytest.mark.parametrize("damage", [Path.unlink, lambda table: table.write_bytes(table.read_bytes()[:-3])])
def test_a_cell_that_has_lost_its_samples_is_measured_again_once(tmp_path: Path, damage: Callable[[Path], object]):
    cells = [scripted.make_cell("vanilla"), scripted.make_cell("random")]
    run(cells, scripted.make_setting(tmp_path))
    store = scripted.make_setting(tmp_path).store
    table = store.samples_path(cells[1].id)
    whole = table.read_bytes()
    damage(table)
    assert run(cells, scripted.make_setting(tmp_path)).lines()[-1].startswith("2 cells: 1 ok, 1 done before; ")
    assert table.read_bytes() == whole
    assert run(cells, scripted.make_setting(tmp_path)).lines()[-1].startswith("2 cells: 2 done before; ")


def test_failed_cells_are_tried_again_and_keep_their_answers(tmp_path: Path):
    cells = [scripted.make_cell("defect"), scripted.make_cell("infeasible")]
    run(cells, scripted.make_setting(tmp_path))
    summary = run(cells, scripted.make_setting(tmp_path))
    assert (len(summary.visits), summary.before) == (1, 1)
    assert asked(tmp_path)[f"{cells[0].id} 0"] == 1


def test_an_interrupted_cell_keeps_its_journal_and_its_lease_ends(tmp_path: Path):
    cell, setting = scripted.make_cell("interrupted"), scripted.make_setting(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run([cell], setting)
    assert len(setting.store.journal(cell).known()) == scripted.BATCH
    with setting.store.lease(cell) as mine:
        assert mine


def test_each_model_is_opened_once_and_freed_before_the_next(tmp_path: Path):
    opened: list[str] = []
    alive: list[weakref.ref[object]] = []

    def open_engine(model):
        gc.collect()
        assert not [ref for ref in alive if ref() is not None]
        engine = scripted.ScriptedEngine(tmp_path / "asked.log")
        opened.append(model.label)
        alive.append(weakref.ref(engine))
        return engine

    cells = [scripted.make_cell(model=model, seed=seed) for seed in (0, 1) for model in ("a", "b")]
    summary = run(cells, replace(scripted.make_setting(tmp_path), open_engine=open_engine))
    assert (summary.exit_code, opened) == (0, ["a", "b"])


def test_every_cell_gets_the_pictures_of_the_suite(tmp_path: Path):
    picture_folders = []

    class Watched(scripted.ScriptedEngine):
        def run(self, cell, benchmark, journal, progress, picture_folder, swept=None):
            picture_folders.append(picture_folder)
            return super().run(cell, benchmark, journal, progress, picture_folder, swept)

    setting = replace(scripted.make_setting(tmp_path), pictures=3, open_engine=lambda model: Watched(tmp_path / "asked.log"))
    run([scripted.make_cell(seed=seed) for seed in (0, 1)], setting)
    assert picture_folders == [PictureFolder(setting.store.folder, 3)] * 2


def test_a_complete_folder_needs_no_model(tmp_path: Path):
    def open_engine(model):
        raise AssertionError

    run([scripted.make_cell()], scripted.make_setting(tmp_path))
    assert run([scripted.make_cell()], replace(scripted.make_setting(tmp_path), open_engine=open_engine)).before == 1


def test_a_model_that_the_user_must_mend_stops_the_run(tmp_path: Path):
    def open_engine(model):
        raise UserError(f"no checkpoint '{model.id}'")

    setting = replace(scripted.make_setting(tmp_path), open_engine=open_engine)
    with pytest.raises(UserError, match="no checkpoint 'toy'"):
        run([scripted.make_cell()], setting)
    assert setting.store.records() == []


def test_a_model_that_breaks_while_loading_fails_its_cells_at_once_and_no_others(tmp_path: Path):
    setting, opened = scripted.make_setting(tmp_path), []

    def open_engine(model):
        opened.append(model.label)
        if model.label == "broken":
            raise RuntimeError("damaged weights")
        return setting.open_engine(model)

    cells = [scripted.make_cell(model=model, seed=seed) for model in ("broken", "toy") for seed in (0, 1)]
    summary = run(cells, replace(setting, open_engine=open_engine))
    assert [visit.record.status for visit in summary.visits] == ["failed", "failed", "ok", "ok"]
    assert opened == ["broken", "toy"]


def test_a_later_model_that_the_user_must_mend_fails_its_cells_and_the_others_go_on(tmp_path: Path):
    setting, opened = scripted.make_setting(tmp_path), []

    def open_engine(model):
        opened.append(model.label)
        if model.label == "wrong":
            raise UserError("the prompt template is wrong")
        return setting.open_engine(model)

    cells = [scripted.make_cell(model=model, seed=seed) for model in ("toy", "wrong", "last") for seed in (0, 1)]
    summary = run(cells, replace(setting, open_engine=open_engine))
    assert [visit.record.status for visit in summary.visits] == ["ok", "ok", "failed", "failed", "ok", "ok"]
    assert {v.record.reason for v in summary.visits if v.cell.model.label == "wrong"} == {"the prompt template is wrong"}
    assert (summary.exit_code, opened) == (1, ["toy", "wrong", "last"])
    with pytest.raises(UserError, match="the prompt template is wrong"):  # nothing else is left to be measured
        run(cells, replace(setting, open_engine=open_engine))


def test_what_a_cell_says_is_in_a_file_that_the_line_of_a_failed_one_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    class Talking(scripted.ScriptedEngine):
        def run(self, cell, *rest):
            if cell.seed:
                print("the scores are", cell.pruner.name)
            return super().run(cell, *rest)

    cells = [scripted.make_cell(name, seed=seed) for name in ("random", "defect") for seed in (0, 1)]
    setting = replace(scripted.make_setting(tmp_path), open_engine=lambda model: Talking(tmp_path / "asked.log"))
    lines = run(cells, setting).lines()
    logs = [setting.store.log_path(cell.id) for cell in cells]
    assert [log.exists() for log in logs] == [False, True, False, True]
    assert [log.read_text() for log in logs if log.exists()] == ["the scores are random\n", "the scores are defect\n"]
    assert [f"what was said: {logs[3]})" in line for line in lines] == [False, True, False]
    assert "the scores are" not in capsys.readouterr().out


def test_missing_data_stop_the_run_before_anything_is_measured(tmp_path: Path):
    setting = scripted.make_setting(tmp_path)
    (tmp_path / "tasks" / "data.parquet").unlink()
    with pytest.raises(UserError, match=r"needs the data file .*data\.parquet"):
        run([scripted.make_cell()], setting)
    assert asked(tmp_path) == Counter()


def test_a_full_disk_stops_the_run_and_leaves_nothing_half_written(tmp_path: Path):
    process = start(tmp_path, 2, 0, 1, 2000)  # the limit on file sizes fails like a full disk: the write raises OSError
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert re.fullmatch(r"cannot write \S+: File too large; raise the limit.*\n", out)
    files = {path.parent.name for path in (tmp_path / "toy").rglob("*") if path.is_file()}
    assert files == {"journal", "locks", "runs"}

    assert run([scripted.make_cell(seed=seed) for seed in (0, 1)], scripted.make_setting(tmp_path)).exit_code == 0
    assert sum(asked(tmp_path).values()) <= 2 * scripted.QUESTIONS + scripted.BATCH


def test_a_device_that_failed_stops_the_run_and_no_cell_is_recorded_for_it(tmp_path: Path):
    cells, setting = [scripted.make_cell(name) for name in ("random", "lost", "grid")], scripted.make_setting(tmp_path)
    with pytest.raises(DeviceLost) as caught:
        run(cells, setting)
    assert str(caught.value) == (
        f"the device failed (CUDA error: device-side assert triggered) at {cells[1]}; what is finished is kept: "
        "run the same command again, and if it fails there again, name the other cells with --only"
    )
    assert [record.pruner.name for record in setting.store.records()] == ["random"]
    assert setting.store.journal(cells[1]).known()


def test_a_device_without_room_fails_one_cell_alone(tmp_path: Path):
    cells, setting = [scripted.make_cell(name) for name in ("full", "random")], scripted.make_setting(tmp_path)
    summary = run(cells, setting)
    assert [visit.record.status for visit in summary.visits] == ["failed", "ok"]
    assert "CUDA error: out of memory" in summary.visits[0].record.reason


def test_a_folder_that_cannot_be_written_stops_the_run_at_once(tmp_path: Path):
    (tmp_path / "toy").write_text("in the way")
    with pytest.raises(StorageError):
        run([scripted.make_cell()], scripted.make_setting(tmp_path))
    assert asked(tmp_path) == Counter()


def test_kill_9_loses_at_most_one_batch(tmp_path: Path):
    process = start(tmp_path, 1, 0.1)
    while sum(asked(tmp_path).values()) < 3 * scripted.BATCH:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert list((tmp_path / "toy" / "records").iterdir()) == []

    summary = run([scripted.make_cell()], scripted.make_setting(tmp_path))
    counts = asked(tmp_path)
    assert summary.visits[0].record.n == scripted.QUESTIONS == len(counts)
    assert sum(counts.values()) - len(counts) <= scripted.BATCH


def test_two_runs_at_once_do_every_cell_exactly_once(tmp_path: Path):
    processes = [start(tmp_path, 3, 0.01, 2) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    counts = asked(tmp_path)
    assert len(counts) == 3 * scripted.QUESTIONS
    assert set(counts.values()) == {1}
    assert all(out.startswith("3 cells: ") for out, _ in outputs)
    assert any("done by another run" in out for out, _ in outputs), "the runs did not overlap"


def test_a_cell_of_another_run_that_died_is_taken_over(tmp_path: Path):
    other = start(tmp_path, 1, 0.3)
    while not asked(tmp_path):
        assert other.poll() is None, other.communicate()
        time.sleep(0.01)
    late = start(tmp_path, 1)
    assert late.stderr is not None
    assert late.stderr.readline() == "waiting for 1 cells that another run is working on\n"
    other.kill()
    other.communicate()
    out, err = late.communicate(timeout=60)
    assert (late.returncode, out.split(";")[0]) == (0, "1 cells: 1 ok"), err


def test_plain_progress_is_one_line_as_a_cell_begins_and_one_as_it_ends(tmp_path: Path):
    console = Console(file=StringIO(), width=40)
    run([scripted.make_cell(), scripted.make_cell("infeasible")], scripted.make_setting(tmp_path, console=console))
    lines = console.file.getvalue().splitlines()
    assert lines[:2] == ["toy / exist: 2 rows in one pass", "[1/2] toy / random @ 4 / exist / seed 0"]
    assert re.fullmatch(r"\[1/2\] 100\.0, 40 samples in \d\.\d s", lines[2])
    assert lines[3:] == ["[2/2] toy / infeasible @ 4 / exist / seed 0", "[2/2] infeasible: cannot go below 10 tokens"]


def test_live_progress_shows_cells_failures_and_leaves_the_results(tmp_path: Path):
    console = Console(file=StringIO(), force_terminal=True, width=120)
    setting = scripted.make_setting(tmp_path, pause_s=0.03, progress=LiveProgress(console))
    run([scripted.make_cell("defect"), scripted.make_cell(), scripted.make_cell(seed=1)], setting)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    assert "toy / random @ 4 / exist / seed 1: 100.0, 40 samples" in text
    assert re.search(r"2/3 1 failed 0:00:0\d left", text) or re.search(r"1/3 1 failed 0:00:0\d left", text)
    assert re.search(r"\d+/40 samples, \d+\.\d/s", text)


def test_time_left_follows_the_pace_of_like_cells():
    pace = Pace()
    short, long = scripted.make_cell(), scripted.make_cell(label="long")
    assert pace.left_s(short, 1.0, 0.0, [long]) is None
    assert pace.left_s(short, 1.0, 0.25, [short, short]) == pytest.approx(3 + 4 + 4)
    pace.add(short, 4.0)
    pace.add(long, 10.0)
    assert pace.left_s(long, 2.0, 0.0, [short, long]) == pytest.approx(8 + 4 + 10)
    assert pace.left_s(long, 12.0, 0.0, []) == 0.0


def test_a_cell_that_is_scored_beside_leaves_the_display_of_the_current_one(tmp_path: Path):
    cells = [scripted.make_cell("random", seed=seed) for seed in range(3)]
    records = {visit.cell.id: visit.record for visit in run(cells, scripted.make_setting(tmp_path)).visits}
    progress, (beside, taken_back, now) = LiveProgress(Console(file=StringIO())), cells
    progress.start(cells)
    whole, current = progress._bars.tasks
    for cell in (beside, taken_back):
        progress.begin_scoring(cell)
    progress.begin_sweep([now])
    progress.end(beside, records[beside.id])
    assert (whole.completed, current.visible) == (1, True)
    progress.wait_for_scores(1)
    assert "scoring 1 cells" in current.description
    progress.begin(taken_back)
    progress.end(taken_back, records[taken_back.id])
    assert (whole.completed, current.visible) == (2, False)
