"""Results of the demo as they were measured are sound; whatever is changed of them, however consistently, is found."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vtpbench.harness.cli.main import app
from vtpbench.harness.host.console import console
from vtpbench.harness.records.cell import Sample
from vtpbench.harness.records.record import Record, load_record
from vtpbench.harness.records.samples import read_table, table_hash, write_table
from vtpbench.harness.run.job import RunOptions, execute, make_job
from vtpbench.harness.run.progress import make_progress
from vtpbench.harness.verify.budgets import budget_faults, names_code
from vtpbench.harness.verify.folder import verify
from vtpbench.harness.verify.identity import cells_of, is_named_after_its_facts
from vtpbench.harness.verify.scores import Scorers

Change = Callable[["Folder"], None]
LIMIT = 6


class Folder:
    """Results that can be changed as somebody would who renews every checksum."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self) -> Iterator[Record]:
        return map(load_record, sorted((self.path / "records").glob("*.json")))

    def one(self, pruner: str = "visionzip", benchmark: str = "demo-open") -> Record:
        return next(each for each in self.records() if (each.pruner.name, each.benchmark.label) == (pruner, benchmark))

    def file(self, record: Record) -> Path:
        return self.path / "records" / f"{record.cell_id}.json"

    def rows(self, record: Record) -> list[Sample]:
        frame = read_table((self.path / "samples" / f"{record.cell_id}.parquet").read_bytes())
        return [Sample(**row) for row in frame.astype(object).where(frame.notna(), None).to_dict("records")]

    def save(self, record: Record, **facts: Any) -> None:
        self.file(record).write_text(record.model_copy(update=facts).dump(), encoding="utf-8")

    def save_rows(self, record: Record, rows: list[Sample], **facts: Any) -> None:
        data = write_table(rows)
        (self.path / "samples" / f"{record.cell_id}.parquet").write_bytes(data)
        self.save(record, samples_sha256=table_hash(data), **facts)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a part of the demo: vanilla, a pruner, one that cannot reach its budget."""
    out = tmp_path_factory.mktemp("measured")
    only = ["pruner=VisionZip", "pruner=FastV", "budget=16", "benchmark=demo-exist", "benchmark=demo-open"]
    execute(make_job("demo", RunOptions(out, only, limit=LIMIT), pytest.fail), "cpu", make_progress(console(sys.stderr)))
    return out / "demo"


@pytest.fixture(scope="module")
def scorers() -> Scorers:
    return Scorers()


@pytest.fixture
def folder(measured: Path, tmp_path: Path) -> Folder:
    """Give a copy of one benchmark's cells."""
    shutil.copytree(measured, tmp_path / "demo")
    copy = Folder(tmp_path / "demo")
    for other in [each for each in copy.records() if each.benchmark.label != "demo-open"]:
        copy.file(other).unlink()
        (copy.path / "samples" / f"{other.cell_id}.parquet").unlink(missing_ok=True)
    return copy


def test_results_as_they_were_measured_are_sound(measured: Path, scorers: Scorers) -> None:
    found = verify(measured, scorers)
    assert list(found.lines()) == [f"{measured}: sound: 6 cells (2 infeasible, 4 ok); 4 scored again from their answers"]
    assert found.as_dict()["faults"] == []


def edited(folder: Folder) -> None:
    file = folder.file(folder.one())
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))


def other_table(folder: Folder) -> None:
    other = folder.path / "samples" / f"{folder.one('vanilla').cell_id}.parquet"
    shutil.copy(other, folder.path / "samples" / f"{folder.one().cell_id}.parquet")


def other_answer(folder: Folder) -> None:
    one = folder.one()
    first, *rest = folder.rows(one)
    wrong = next(row.target for row in rest if row.target != first.answer)
    folder.save_rows(one, [replace(first, answer=wrong), *rest])


def other_sample_score(folder: Folder) -> None:
    one = folder.one()
    first, *rest = folder.rows(one)
    detail = json.dumps({metric: 1.0 - item for metric, item in json.loads(first.detail).items()})
    assert first.score is not None
    folder.save_rows(one, [replace(first, score=1 - first.score, detail=detail), *rest])


def row_dropped(folder: Folder) -> None:
    for one in folder.records():
        if one.status == "ok":
            folder.save_rows(one, folder.rows(one)[:-1], n=LIMIT - 1)


def row_dropped_of_one(folder: Folder) -> None:
    one = folder.one()
    folder.save_rows(one, folder.rows(one)[1:], n=LIMIT - 1)


def row_doubled(folder: Folder) -> None:
    one = folder.one()
    folder.save_rows(one, [*folder.rows(one), folder.rows(one)[0]], n=LIMIT + 1)


def other_budget(folder: Folder) -> None:
    one = folder.one()
    folder.save(one, budget=one.budget.model_copy(update={"tokens": 32}))


def forge(folder: Folder, one: Record, **facts: Any) -> None:
    """Change what a cell is, and its id and the names of its files with it."""
    forged = one.model_copy(update=facts)
    forged = forged.model_copy(update={"cell_id": next(cells_of(forged, ())).id})
    for kind, ending in (("records", "json"), ("samples", "parquet")):
        path = folder.path / kind / f"{one.cell_id}.{ending}"
        if path.exists():
            path.rename(folder.path / kind / f"{forged.cell_id}.{ending}")
    folder.save(forged)


def other_budget_and_id(folder: Folder) -> None:
    """Forge the id as well: the file is named as the cell of the larger budget would be."""
    one = folder.one()
    forge(folder, one, budget=one.budget.model_copy(update={"tokens": 8}))


def turned_round(folder: Folder) -> None:
    """Let less be better in all rows: what loses much of vanilla's score would be far above 100 %."""
    for one in list(folder.records()):
        forge(folder, one, benchmark=one.benchmark.model_copy(update={"higher_is_better": False}))


def other_options(pruner: str) -> Change:
    def change(folder: Folder) -> None:
        one = folder.one(pruner)
        folder.save(one, pruner=one.pruner.model_copy(update={"options": {**one.pruner.options, "more": 1}}))

    return change


def other_facts(part: str = "", **facts: Any) -> Change:
    def change(folder: Folder) -> None:
        one = folder.one()
        folder.save(one, **({part: getattr(one, part).model_copy(update=facts)} if part else facts))

    return change


def other_question(folder: Folder) -> None:
    one = folder.one()
    first, *rest = folder.rows(one)
    folder.save_rows(one, [replace(first, prompt=f"{first.prompt} Say yes."), *rest])


def tokens_unknown(folder: Folder) -> None:
    one = folder.one()
    folder.save_rows(one, [replace(row, tokens=None) for row in folder.rows(one)])  # type: ignore[arg-type]  # as a forged file has it


def strange_result(folder: Folder) -> None:
    one = folder.one()
    first, *rest = folder.rows(one)
    folder.save_rows(one, [replace(first, detail='{"exact_match": [{}]}'), *rest])


def other_tokens(folder: Folder) -> None:
    one = folder.one()
    folder.save_rows(one, [replace(row, tokens=20.0) for row in folder.rows(one)])


def wrong_left_out(folder: Folder) -> None:
    """Leave out what a pruner has wrong, of vanilla's, too."""
    wrong = {row.sample for row in folder.rows(folder.one()) if not row.score}
    for one in [folder.one(), folder.one("vanilla")]:
        rows = [row for row in folder.rows(one) if row.sample not in wrong]
        folder.save_rows(one, rows, n=len(rows), skipped=dict.fromkeys(wrong, "no picture"), score=100.0)


def endless_number(folder: Folder) -> None:
    one = folder.one()
    first, *rest = folder.rows(one)
    folder.save_rows(one, [replace(first, detail=f'{{"exact_match": 1{"0" * 400}}}'), *rest])


def in_all(**facts: Any) -> Change:
    """Change columns of all tables alike."""

    def change(folder: Folder) -> None:
        for one in [each for each in folder.records() if each.status == "ok"]:
            folder.save_rows(one, [replace(row, **facts) for row in folder.rows(one)])

    return change


def other_look(folder: Folder) -> None:
    one = folder.one()
    folder.save_rows(one, [replace(row, perceptual_hash="0" * 16) for row in folder.rows(one)])


def vanilla_gone(folder: Folder) -> None:
    vanilla = folder.one("vanilla")
    folder.file(vanilla).unlink()


def under_another_name(folder: Folder) -> None:
    shutil.copy(folder.file(folder.one()), folder.path / "records" / f"{'0' * 16}.json")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (edited, "the checksum does not match"),
        (other_facts(score=99.0), "score 99 and "),
        (other_facts(stderr=0.01), "stderr 0.01 and "),
        (other_facts(metrics={"exact_match": 0.9}), "metrics exact_match 0.9 and "),
        (other_answer, "question 0 differs in its table and scored again"),
        (other_sample_score, "question 0 differs in its table and scored again: score"),
        (other_facts(n=LIMIT + 1), f"the record counts {LIMIT + 1} samples, its table holds {LIMIT}"),
        (other_facts(seed=1), "its id is not the hash of what it says"),
        (other_options("visionzip"), "its id is not the hash of what it says"),
        (other_options("fastv"), "its id is not the hash of what it says"),
        (other_budget, "kept 16.00 vision tokens in a layer on average, 32.00 were due; so do 5 more"),
        (other_budget_and_id, "kept 16.00 vision tokens in a layer on average, 8.00 were due; so do 5 more"),
        (other_facts("observed", tokens=12.0), "the record observed 12 tokens, those of its table have the mean 16"),
        (other_facts("observed", original=576.0), "576 tokens of an unpruned image, its model makes 144"),
        (other_facts("observed", images=3), "the record counts 3 images, its table names 6"),
        (other_tokens, "those of its table have the mean 20"),
        (tokens_unknown, "question 0 has no count of tokens"),
        (strange_result, "question 0 differs in its table and scored again: detail exact_match"),
        (other_facts("answers", empty=0.5), "`empty` is 0.5 in the record and 0.0 in its table"),
        (other_facts(seeds=[0, 1]), "there is no record of its row with seed 1"),
        (other_facts(samples_sha256="0" * 64), "is not the table that the record names"),
        (other_facts(samples_sha256=None), "lacks a score, its token counts or a table"),
        (other_table, "is not the table that the record names"),
        (other_question, "question 0 is another than that of demo / vanilla / demo-open / seed 0: prompt"),
        (row_dropped, "cannot be scored again: question 5 has no row"),
        (row_dropped_of_one, "its table has no row of question 0"),
        (row_doubled, "'0' is no name of a sample, or stands twice"),
        (wrong_left_out, "and was to fail where one cannot be asked"),
        (other_facts(skipped={"0": "no picture"}), "question 0 has a row, and was left out as well"),
        (endless_number, "question 0 differs in its table and scored again: detail exact_match"),
        (other_facts(status="infeasible", score=None, stderr=None, samples_sha256=None), "the record says that it is infeasible"),
        (in_all(image="f" * 16), f"question 0 has the image '{'f' * 16}' in one column and "),
        (in_all(image="", images=""), "question 0 has 16.00 vision tokens, and no image"),
        (other_look, "question 0 is another than that of demo / vanilla / demo-open / seed 0: perceptual_hash"),
        (other_facts("observed", per_layer=[]), "those of its layers have the mean 0"),
        (turned_round, "the record says that less of exact_match is better, its task says that more is"),
        (vanilla_gone, "there is no vanilla beside it"),
        (under_another_name, "holds the cell "),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)[:40]),
)
def test_what_was_changed_is_found(folder: Folder, scorers: Scorers, change: Change, told: str) -> None:
    change(folder)
    found = verify(folder.path, scorers)
    assert any(told in fault.what for fault in found.faults), list(found.lines())
    assert all(fault.file.is_relative_to(folder.path) for fault in found.faults)
    assert next(found.lines()).startswith(f"{folder.path}: NOT SOUND: ")


def test_without_the_data_the_tasks_own_results_are_aggregated(measured: Path, scorers: Scorers) -> None:
    folder = Folder(measured)
    for benchmark in ("demo-exist", "demo-open"):  # its own aggregation, and a mean
        one = folder.one("visionzip", benchmark)
        elsewhere = one.model_copy(update={"benchmark": one.benchmark.model_copy(update={"dataset": "0" * 16})})
        again = scorers.rescore(elsewhere, folder.rows(one))
        assert (again.level, again.faults) == ("results", ())
        assert again.why_not_more == f"the data of {one.benchmark.task} are not here, or not the ones that were asked"
        (told,) = scorers.rescore(elsewhere.model_copy(update={"score": 1.5}), folder.rows(one)).faults
        assert told.startswith("its score is 1.5, its samples give ")
        first, *rest = folder.rows(one)
        (told,) = scorers.rescore(elsewhere, [replace(first, score=0.25), *rest]).faults
        assert told.startswith("question 0 has the score 0.25, and the task's result {")
        endless = replace(first, detail=first.detail.replace("1.0", f"1{'0' * 400}").replace("0.0", f"1{'0' * 400}"))
        assert any("question 0 has the score" in told for told in scorers.rescore(elsewhere, [endless, *rest]).faults)


def test_of_an_unknown_task_or_another_lmms_eval_the_mean_is_compared(measured: Path, scorers: Scorers) -> None:
    folder = Folder(measured)
    one = folder.one()
    strange = one.model_copy(update={"benchmark": one.benchmark.model_copy(update={"task": "mine"})})
    versions = one.environment.model_copy(update={"versions": {**one.environment.versions, "lmms-eval": "0.1"}})
    for record, why in (
        (strange, "the task mine is not known here, name its suite with --suite"),
        (one.model_copy(update={"environment": versions}), "scored with lmms-eval 0.1, here is "),
    ):
        again = scorers.rescore(record, folder.rows(one))
        assert (again.level, again.faults) == ("means", ())
        assert again.why_not_more.startswith(why)
        assert scorers.rescore(record.model_copy(update={"score": 1.5}), folder.rows(one)).faults
    assert scorers.rescore(strange.model_copy(update={"stderr": None}), folder.rows(one)).level == "none"


def test_the_command_has_exit_codes_and_imports_no_torch_where_nothing_is_scored(folder: Folder, tmp_path: Path) -> None:
    for one in [each for each in folder.records() if each.status == "ok"]:
        folder.file(one).write_text("{")
    code = (
        "import sys; from vtpbench.harness.cli.main import app\n"
        "try: app()\nfinally: print(*[m for m in ('torch', 'lmms_eval') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, "verify", str(tmp_path), "--json"], capture_output=True, text=True)
    (found,) = json.loads(done.stdout)
    assert (done.returncode, done.stderr.strip(), found["sound"]) == (1, "", False)
    told = [fault["fault"] for fault in found["faults"]]
    assert [line.partition(" ")[0] for line in told] == ["not", "not", "there"]  # readable, readable, no vanilla beside FastV
    assert CliRunner().invoke(app, ["verify", str(tmp_path / "nothing")]).exit_code == 2


def test_a_site_says_what_was_verified(folder: Folder, tmp_path: Path) -> None:
    one = folder.one()
    folder.save(one, score=99.0)
    asked = ["site", str(folder.path), "--out", str(tmp_path / "site"), "--verify"]
    done = CliRunner().invoke(app, asked)
    assert (done.exit_code, done.stdout) == (0, f"5 pages; open {tmp_path / 'site' / 'index.html'}\n")
    index = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert re.findall(r">(from answers|NOT SOUND|no score)<", index.replace("\n", "")) == [
        "from answers",
        "NOT SOUND",
        "no score",
    ]
    first = {file: file.read_bytes() for file in (tmp_path / "site").rglob("*.html")}
    assert CliRunner().invoke(app, asked).exit_code == 0
    assert {file: file.read_bytes() for file in (tmp_path / "site").rglob("*.html")} == first
    assert CliRunner().invoke(app, ["site", str(folder.path), "--out", str(folder.path)]).exit_code == 2


def test_files_that_options_name_are_no_part_of_an_id(measured: Path) -> None:
    one = Folder(measured).one()
    pruner = one.pruner.model_copy(update={"options": {"checkpoint": "mine/weights.pt"}, "fingerprint": "f" * 64})
    record = one.model_copy(update={"pruner": pruner})
    ids = {cell.id for cell in cells_of(record, ())}
    assert len(ids) == 4  # the option names a file, or does not; graphs were asked for, or not
    elsewhere = record.model_copy(update={"pruner": pruner.model_copy(update={"options": {"checkpoint": "yours/other.pt"}})})
    assert len(ids & {cell.id for cell in cells_of(elsewhere, ())}) == 2
    assert all(is_named_after_its_facts(record.model_copy(update={"cell_id": own}), ()) for own in ids)


def test_a_record_that_names_a_file_of_code_does_not_run_it(measured: Path) -> None:
    pruner = Folder(measured).one().pruner
    assert not names_code(pruner)
    assert names_code(pruner.model_copy(update={"name": "./mine.py:Mine"}))
    assert names_code(pruner.model_copy(update={"name": "sequence", "options": {"first": "x/mine.py:Mine"}}))


@pytest.mark.parametrize(
    ("name", "budget", "kept", "missed"),
    [
        ("visionzip", {"tokens": 64}, [64.0, 40.0], False),  # the second image has no more than 40
        ("visionzip", {"tokens": 64}, [60.0, 40.0], True),
        ("visionzip", {"ratio": 0.25}, [100.0, 10.0], False),
        ("visionzip", {"ratio": 0.25}, [100.0, 40.0], True),
        ("downsample", {"tokens": 64}, [20.0, 12.0], False),  # adaptive
        ("downsample", {"tokens": 64}, [66.0, 12.0], True),
        ("no-such-pruner", {"tokens": 64}, [20.0, 12.0], False),
        ("no-such-pruner", {"tokens": 64}, [66.0, 12.0], True),
        ("vanilla", {}, [400.0, 40.0], False),
        ("vanilla", {}, [399.0, 20.0], True),
    ],
)
def test_where_images_differ_in_size_the_budget_is_that_of_each(
    measured: Path, name: str, budget: dict[str, float], kept: list[float], missed: bool
) -> None:
    folder = Folder(measured)
    one, (first, second, *_) = folder.one(), folder.rows(folder.one())
    model = one.model.model_copy(update={"vision_tokens": None})
    pruner = one.pruner.model_copy(update={"name": name, "options": {}})
    asked = one.budget.model_copy(update={"tokens": None} | budget)
    record = one.model_copy(update={"model": model, "pruner": pruner, "budget": asked})
    rows = [replace(row, tokens=tokens) for row, tokens in zip((first, second), kept, strict=True)]
    assert bool(list(budget_faults(record, rows, {first.sample: 400.0, second.sample: 40.0}))) == missed
