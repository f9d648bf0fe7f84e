"""Tasks of one's own whose data or code are broken, or change under the run."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image
from rich.console import Console

from vtpbench.harness.gather.sources import gather
from vtpbench.harness.records.cell import Answer
from vtpbench.harness.records.record import Record
from vtpbench.harness.run.job import Job, RunOptions, execute, make_job
from vtpbench.harness.run.progress import Progress, describe
from vtpbench.report.formats.render import render
from vtpbench.report.stats.build import build

UTILS = """
from pathlib import Path
from PIL import Image
def visual(doc):
    return [doc["image"].convert("RGB")]
def beside(doc):
    return [Image.open(Path(__file__).parent / doc["image"])]
def text(doc, lmms_eval_specific_kwargs=None):
    return {"untold": {}}.get(doc["question"], doc)["question"]
def score(doc, results):
    return {"right": 1.0 / len(doc["answer"])}
"""
TASK = """
task: mine
dataset_path: FORMAT
dataset_kwargs: {data_files: {test: questions.FORMAT}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.VISUAL
doc_to_text: !function utils.text
doc_to_target: answer
process_results: !function utils.score
generation_kwargs: {max_new_tokens: 4}
metric_list: [{metric: right, aggregation: mean, higher_is_better: true}]
"""


MINE = "{label: Mine, task: mine, folder: ., metric: right}"


def picture(colour: Any) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(stream, "PNG")
    return stream.getvalue()


def write_task(folder: Path, kind: str, visual: str) -> None:
    (folder / "utils.py").write_text(UTILS)
    (folder / "mine.yaml").write_text(TASK.replace("FORMAT", kind).replace("VISUAL", visual))


def write_questions(folder: Path, rows: list[tuple[bytes, str, str]]) -> None:
    write_task(folder, "parquet", "visual")
    text = datasets.Value("string")
    kinds = datasets.Features(image=datasets.Image(), question=text, answer=text)
    found = [{"image": {"bytes": data, "path": None}, "question": question, "answer": answer} for data, question, answer in rows]
    datasets.Dataset.from_list(found, kinds).to_parquet(folder / "questions.parquet")


@pytest.fixture
def job(tiny_checkpoint: Path, tmp_path: Path) -> Any:
    def make(*settings: str, pruners: str = "random") -> Job:
        (tmp_path / "s.yaml").write_text(
            f"models: [{{label: tiny, path: {tiny_checkpoint}, dtype: float32}}]\n"
            f"matrix: {{pruners: [{pruners}], budgets: [4], benchmarks: [{MINE}]}}\n"
        )
        return make_job(str(tmp_path / "s.yaml"), RunOptions(tmp_path / "out", settings=list(settings)), print)

    return make


def run(job: Job) -> list[Record]:
    return [visit.record for visit in execute(job, "cpu", Progress(Console(quiet=True))).visits]


BROKEN = [(picture("red"), f"What is {n}?", "x") for n in range(6)]
BROKEN[3] = (picture("red")[:60], "What is 3?", "x")
BROKEN[4] = (picture("red"), "untold", "x")


def test_a_question_that_breaks_fails_its_cells_by_name(job: Any, tmp_path: Path) -> None:
    write_questions(tmp_path, BROKEN[:4])
    for record in run(job()):
        assert record.status == "failed"
        assert str(record.reason).startswith('question 3 of Mine ("What is 3?"): ')
    write_questions(tmp_path, BROKEN[2:3] + BROKEN[4:])
    for record in run(job()):
        assert str(record.reason).startswith("question 1 of Mine (\"\"): KeyError: 'question', at utils.py:9; ")
    write_questions(tmp_path, BROKEN[4:])
    for record in run(job()):
        assert "question 0: KeyError: 'question', at utils.py:9" in str(record.reason)


def test_an_answer_that_cannot_be_scored_fails_its_cells_by_name(job: Any, tmp_path: Path) -> None:
    write_questions(tmp_path, [(picture("red"), "What is it?", "x"), (picture("blue"), "And this?", "")])
    (record, _) = run(job("on_bad_question=skip"))
    assert record.status == "failed"
    assert str(record.reason).startswith('question 1 of Mine ("And this?", picture of 40 x 30): scoring the answer ')
    assert "breaks with ZeroDivisionError: float division by zero, at utils.py:11; mend the task's code" in str(record.reason)


def test_questions_that_break_are_left_out_of_every_row_and_counted(job: Any, tmp_path: Path) -> None:
    write_questions(tmp_path, BROKEN)
    made = job("on_bad_question=skip", "limit=5", pruners="random, {fastv: {layer: 1}}")
    records = run(made)
    for record in records[:2]:
        assert record.status == "ok", record.reason
        assert (record.n, set(record.skipped), record.score) == (3, {"3", "4"}, 1.0)
        assert "3 samples, 2 left out that cannot be asked" in describe(record)
        table = made.store.samples(record.cell_id)
        assert table is not None
        assert list(table["sample"]) == ["0", "1", "2"]
        assert list(table["images"]) == list(table["image"])
    found = gather([str(tmp_path / "out")], tmp_path, print).records
    assert "3 samples (limit 5), 2 questions left out that cannot be asked (such as 3: " in render(build(found), "markdown")
    rows = list(csv.DictReader(io.StringIO(render(build(found), "csv"))))
    assert {row["skipped"] for row in rows if row["status"] == "ok"} == {"2"}
    assert {row["most_common_answers"] for row in rows if row["status"] == "ok"} <= {str(n / 3) for n in (1, 2, 3)}


def test_a_suite_where_nothing_can_be_asked_fails(job: Any, tmp_path: Path) -> None:
    noise = io.BytesIO()
    Image.effect_noise((300, 400), 90).save(noise, "JPEG")
    write_questions(tmp_path, [(noise.getvalue()[:9000], "What is cut off?", "x")] * 2)
    assert {str(record.reason).partition(":")[0] for record in run(job("on_bad_question=skip"))} == {"no question can be asked"}


def test_what_is_asked_is_what_was_hashed_also_where_size_and_time_of_the_file_are_the_same(job: Any, tmp_path: Path) -> None:
    write_task(tmp_path, "json", "beside")
    (tmp_path / "a.png").write_bytes(picture("red"))
    file, ids = tmp_path / "questions.json", []
    for colour in ("red?", "tan?"):
        file.write_text(json.dumps([{"image": "a.png", "question": f"Is it {colour}", "answer": "x"}]))
        os.utime(file, (1, 1))
        made = job(pruners="vanilla")
        (record,) = run(made)
        table = made.store.samples(record.cell_id)
        assert table is not None
        assert list(table["prompt"]) == [f"Is it {colour}"]
        ids.append(record.cell_id)
    assert len(set(ids)) == 2


def test_another_picture_makes_another_cell(job: Any, tmp_path: Path) -> None:
    write_task(tmp_path, "json", "beside")
    (tmp_path / "questions.json").write_text(json.dumps([{"image": "a.png", "question": "What?", "answer": "x"}]))
    cells = []
    for colour in ("red", "blue"):
        (tmp_path / "a.png").write_bytes(picture(colour))
        cells.append(job(pruners="vanilla").cells[0].id)
    assert len(set(cells)) == 2
    made = job(pruners="vanilla")
    (tmp_path / "a.png").write_bytes(picture("red"))
    (record,) = run(made)
    assert record.reason == "the data of benchmark 'Mine' changed while the suite was run; run it again"


def test_a_cell_that_is_resumed_on_other_pictures_fails_once_and_starts_anew(job: Any, tmp_path: Path) -> None:
    write_questions(tmp_path, [(picture((n, 0, 0)), f"What is {n}?", "x") for n in range(3)])
    made = job(pruners="vanilla")
    made.store.prepare()
    made.store.journal(made.cells[0]).add([Answer("1", "old", ("0" * 16,), (16,), ((16,) * 6,))])
    (record,) = run(made)
    assert "a picture of question 1 has changed since it was answered" in str(record.reason)
    (record,) = run(made)
    assert (record.status, record.n) == ("ok", 3)
