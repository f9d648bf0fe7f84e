"""What a task's own definition says of its score is followed: tasks of one's own in the real engine, answers from a script."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vtpbench.harness.models.tiny import tiny_llava
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.records.cell import Answer, Cell
from vtpbench.harness.records.outcome import Outcome
from vtpbench.harness.records.record import BudgetInfo, ModelInfo, PrunerInfo
from vtpbench.harness.run.engine import Engine
from vtpbench.harness.run.scoring import Evaluated, outcome
from vtpbench.harness.suite.benchmarks import Benchmark, describe
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.registry import build

MODEL = tiny_llava()
QUESTIONS = {"one?": "(A)", "two?": "the answer is B", "three?": " C"}
TRUTHS = {"one?": "A", "two?": "B", "three?": "D"}
TASK = """
task: mine
dataset_path: parquet
dataset_kwargs: {data_files: {test: data.parquet}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.visual
doc_to_text: question
doc_to_target: answer
process_results: !function utils.score
metric_list:
- {metric: right, aggregation: mean, higher_is_better: true}
- {metric: wrong, aggregation: mean, higher_is_better: false}
- {metric: length, aggregation: mean}
- {metric: odd, aggregation: !function utils.none, higher_is_better: true}
"""
UTILS = """
def visual(doc): return [doc["image"]]
def none(items): return None
def score(doc, results):
    said = results[0] if isinstance(results[0], str) else results[0][0]
    right = said == doc["answer"]
    return {"right": float(right), "wrong": float(not right), "length": len(said), "odd": 1.0, "seen": said}
"""
FILTERS = """
filter_list:
- name: letter
  filter: [{function: regex, regex_pattern: "([A-D])", group_select: -1}, {function: take_first}]
- name: ends in a letter
  filter: [{function: regex, regex_pattern: "([A-D])$"}, {function: take_first}]
"""


class ScriptedEngine(Engine):
    """Sees and prunes as any engine, and then says what the script says; each question it asks is noted."""

    def __init__(self, says: Mapping[str, str]) -> None:
        super().__init__(MODEL, 2)
        self.says, self.asked = says, list[str]()

    def pipeline(self, pruner: Any, budget: Any) -> Pipeline:
        batches: dict[int, list[str]] = {}
        engine = self

        class Scripted(Pipeline):
            def assemble(self, questions: Any, images: Any, prompt_ids: Any = None) -> Any:
                batch = super().assemble(questions, images, prompt_ids)
                batches[id(batch)] = list(questions)
                engine.asked.extend(questions)
                return batch

            def generate(self, batch: Any, max_new_tokens: int) -> Any:
                _, trace = super().generate(batch, 1)
                return [engine.says[question] for question in batches[id(batch)]], trace

        return Scripted(self.family, pruner, budget)


class Forgetful:
    """A journal that knows nothing."""

    def known(self) -> dict[str, Any]:
        return {}

    def add(self, answers: Any) -> None:
        pass


def write_data(folder: Path, truths: Mapping[str, str] = TRUTHS) -> None:
    import datasets

    stream, text = io.BytesIO(), datasets.Value("string")
    Image.new("RGB", (20, 20), "red").save(stream, "PNG")
    rows = [{"image": {"bytes": stream.getvalue(), "path": None}, "question": q, "answer": a} for q, a in truths.items()]
    kinds = datasets.Features(image=datasets.Image(), question=text, answer=text)
    datasets.Dataset.from_list(rows, kinds).to_parquet(folder / "data.parquet")


Make = Callable[..., Benchmark]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Give a function that writes a task and names it as a benchmark."""

    def write(metric: str, task: str = TASK, utils: str = UTILS, **keys: Any) -> Benchmark:
        (tmp_path / "mine.yaml").write_text(task)
        (tmp_path / "utils.py").write_text(utils)
        write_data(tmp_path)
        return Benchmark.model_validate({"label": "mine", "task": "mine", "folder": tmp_path, "metric": metric, **keys})

    return write


def cell_of(benchmark: Benchmark, limit: int | None = None) -> Cell:
    model = {"label": "toy", "id": "toy", "family": "toy", "weights": "0", "dtype": "float32", "attention": "sdpa"}
    return Cell(
        model=ModelInfo(**model, preprocessing="none", prompt="0", vision_tokens=None),
        pruner=PrunerInfo(name="vanilla", label="vanilla", options={}, code="0", distribution="vtpbench"),
        budget=BudgetInfo(),
        benchmark=describe(benchmark, limit, {}),
        seed=0,
        batch_size=2,
        versions={},
    )


def play(benchmark: Benchmark, says: Mapping[str, str] = QUESTIONS, engine: ScriptedEngine | None = None) -> Outcome:
    engine = engine or ScriptedEngine(says)
    engine.says = says
    return engine.run(cell_of(benchmark), benchmark, Forgetful(), lambda done, of: None)


@pytest.mark.parametrize(
    ("named", "score", "seen"),
    [("letter", 2 / 3, ["A", "B", "C"]), ("ends in a letter", 1 / 3, ["[invalid]", "B", "C"])],
)
def test_of_several_filters_the_named_ones_number_is_the_score_and_its_samples_the_table(make, named, score, seen) -> None:
    found = play(make(f"right,{named}", TASK + FILTERS))
    assert found.status == "ok", found.reason
    assert found.score == pytest.approx(score)
    assert [sample.answer for sample in found.samples] == list(QUESTIONS.values()), "what the model said, unfiltered"
    assert [sample.score for sample in found.samples] == [float(s == t) for s, t in zip(seen, TRUTHS.values(), strict=True)]
    assert found.metrics["right,letter"] == pytest.approx(2 / 3)
    assert found.metrics["right,ends in a letter"] == pytest.approx(1 / 3)


def test_the_only_filter_of_a_task_need_not_be_named(make) -> None:
    one = FILTERS[: FILTERS.index("- name: ends")]
    benchmark = make("right", TASK + one)
    assert cell_of(benchmark).benchmark.metric == "right,letter"
    assert cell_of(benchmark).benchmark.terms == ("right",)
    assert cell_of(make("right , letter", TASK + one)).id == cell_of(benchmark).id
    assert play(benchmark).score == pytest.approx(2 / 3)


def test_without_filters_nothing_changes(make) -> None:
    benchmark = make("right,none")
    assert cell_of(benchmark).benchmark.metric == "right"
    assert play(benchmark, TRUTHS).score == 1
    assert set(play(benchmark).metrics) == {"right", "wrong", "length"}


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("right", "scores answers behind several filters; say which: metric: right,letter or right,ends in a letter"),
        ("right,leter", "has no filter 'leter' .*; did you mean 'letter'"),
        ("right,letter + length,ends in a letter", "the terms of a sum come from one filter, not from ends in a letter and lett"),
        ("right + wrong,letter", "less is better of wrong, more of the rest; they cannot be summed"),
        ("rihgt,letter", "no metric 'rihgt'; did you mean 'right'"),
    ],
)
def test_a_score_that_no_filter_or_several_give_is_refused_at_planning(make, metric, message) -> None:
    with pytest.raises(UserError, match=message):
        cell_of(make(metric, TASK + FILTERS))


def test_a_metric_that_a_task_never_gives_is_answered_by_what_it_gives(make) -> None:
    task = TASK + "- {metric: vain, aggregation: mean, higher_is_better: true}\n"
    with pytest.raises(UserError, match="task mine gives no vain; it gives right, wrong, length"):
        play(make("vain", task))


def test_a_task_without_metrics_has_lmms_evals_own(make) -> None:
    task = TASK[: TASK.index("process_results")]
    assert play(make("exact_match", task), TRUTHS).score == 1


def test_what_is_dropped_is_not_computed(make) -> None:
    task = TASK + "- {metric: submission, aggregation: !function utils.send, higher_is_better: true}\n"
    utils = UTILS.replace('"odd": 1.0', '"odd": 1.0, "submission": 1.0') + "def send(items): raise OSError('no server')\n"
    assert "submission" not in play(make("right", task, utils)).metrics


def test_records_carry_the_direction_where_less_is_better(make) -> None:
    better, worse = cell_of(make("right")).benchmark, cell_of(make("wrong")).benchmark
    assert (better.higher_is_better, worse.higher_is_better) == (True, False)
    assert json.loads(better.model_dump_json())["higher_is_better"] is True
    assert json.loads(worse.model_dump_json())["higher_is_better"] is False


KEEPS = {
    "a list in its module": (
        "SEEN = []\ndef total(items):\n    SEEN.extend(items)\n    return sum(SEEN) / len(SEEN)\n",
        "",
    ),
    "a default argument": ("def total(items, seen=[]):\n    seen.extend(items)\n    return sum(seen) / len(seen)\n", ""),
    "what it has computed": (
        "from functools import cache\ndef total(items): return first(len(items), tuple(items))\n"
        "class First:\n    def __eq__(self, other): return True\n    def __hash__(self): return 0\n"
        "def first(n, items): return kept(Once(items))\n"
        "class Once(First):\n    def __init__(self, items): self.items = items\n"
        "@cache\ndef kept(once): return sum(once.items) / len(once.items)\n",
        "",
    ),
    "a module beside it": (
        "import os, sys\nsys.path.insert(0, os.path.dirname(__file__))\nimport tally\n"
        "def total(items):\n    tally.SEEN.extend(items)\n    return sum(tally.SEEN) / len(tally.SEEN)\n",
        "SEEN = []\n",
    ),
    "a module of lmms-eval's tasks": (
        "from lmms_eval.tasks._task_utils import mcq_extract as kept\n"
        "def total(items):\n    kept.__dict__.setdefault('SEEN', []).extend(items)\n    return sum(kept.SEEN) / len(kept.SEEN)\n",
        "",
    ),
    "what a sample was worth": (
        "SEEN = []\ndef total(items): return sum(items) / len(items)\n"
        "plain = score\ndef score(doc, results):\n    SEEN.append(doc)\n"
        "    return {**plain(doc, results), 'kept': float(len(SEEN))}\n",
        "",
    ),
}
KEPT = TASK + "- {metric: kept, aggregation: !function utils.total, higher_is_better: true}\n"
ANSWERS: list[dict[str, str]] = [dict.fromkeys(TRUTHS, letter) for letter in "ABXD"]


@pytest.mark.parametrize(("utils", "beside"), KEEPS.values(), ids=KEEPS)
def test_a_score_is_the_same_measured_first_last_or_alone(make, tmp_path, utils, beside) -> None:
    (tmp_path / "tally.py").write_text(beside)
    whole = UTILS.replace('"odd": 1.0', '"odd": 1.0, "kept": float(right)') + utils
    benchmark, engine, path = make("kept", KEPT, whole), ScriptedEngine({}), list(sys.path)
    scores = [play(benchmark, says, engine).score for says in [*ANSWERS, *reversed(ANSWERS)]]
    alone = [play(benchmark, says).score for says in ANSWERS]
    assert scores == [*alone, *reversed(alone)]
    assert len(set(alone)) > 1 or "doc" in utils
    assert sys.path == path
    assert "tally" not in sys.modules


def test_a_score_that_depends_on_what_was_scored_before_all_the_same_fails_its_cell(make) -> None:
    utils = """
import os
def total(items):
    with open(__file__ + ".seen", "a") as file: file.writelines(f"{item}\\n" for item in items)
    seen = list(map(float, open(__file__ + ".seen")))
    return sum(seen) / len(seen)
"""
    whole = UTILS.replace('"odd": 1.0', '"odd": 1.0, "kept": float(right)') + utils
    benchmark, engine = make("kept", KEPT, whole), ScriptedEngine({})
    assert play(benchmark, ANSWERS[0], engine).score == pytest.approx(1 / 3)
    assert play(benchmark, ANSWERS[1], engine).score == pytest.approx(1 / 3), "the same, by chance"
    with pytest.raises(UserError, match=r"task mine gives kept = 0\.2.*, and 0\.2.* for the same samples when its code is loa"):
        play(benchmark, ANSWERS[2], engine)


def test_what_an_aggregation_draws_or_changes_is_no_contradiction(make) -> None:
    utils = """
import random
import numpy as np
def total(items):
    drawn = random.random() + np.random.rand()
    items.sort()
    return drawn + items.pop()
"""
    whole = UTILS.replace('"odd": 1.0', '"odd": 1.0, "kept": float(right)') + utils
    benchmark = make("kept", KEPT, whole)
    assert play(benchmark, ANSWERS[0]).score == play(benchmark, ANSWERS[0]).score


def test_a_mean_that_the_samples_do_not_have_fails_its_cell(make) -> None:
    cell = cell_of(make("right"))
    samples = [{"doc_id": n, "doc": {}, "arguments": ["?"], "target": "A", "right": float(n)} for n in range(2)]
    answers = {str(n): Answer(str(n), "A", (), (), ()) for n in range(2)}

    def scored(value: float) -> Outcome:
        evaluated = Evaluated({"right,none": value}, samples, answers, is_mean=True)
        return outcome(cell, build("vanilla", {}), MODEL.shape, evaluated)

    assert scored(0.5).status == "ok"
    assert (scored(0.75).status, scored(0.75).score) == ("failed", None)
    assert scored(0.75).reason == "the task gives 0.75 as the mean of its samples, whose scores have the mean 0.5; mend the task"


@pytest.mark.parametrize("shows", ['["clip.mp4"]', '[doc["image"], "clip.mp4"]'])
def test_a_task_that_turns_out_to_show_a_video_says_so_with_its_first_question(make, shows) -> None:
    benchmark = make("right", utils=UTILS.replace('[doc["image"]]', shows))
    engine = ScriptedEngine(TRUTHS)
    with pytest.raises(UserError, match=r"question 0 of mine .*the task shows a str, 'clip.mp4', and no picture: video"):
        play(benchmark, engine=engine)
    assert not engine.asked


@pytest.mark.parametrize("shows", ["None", "[]"])
def test_a_task_without_pictures_is_asked_as_text(make, shows) -> None:
    benchmark = make("right", utils=UTILS.replace('[doc["image"]]', shows))
    assert play(benchmark, TRUTHS).score == 1


def test_a_task_that_has_no_function_for_pictures_is_asked_as_text(make) -> None:
    benchmark = make("right", TASK.replace("doc_to_visual: !function utils.visual\n", ""))
    assert play(benchmark, TRUTHS).score == 1
