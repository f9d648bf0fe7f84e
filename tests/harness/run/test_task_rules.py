"""What a task's own definition says of its score is followed: tasks of one's own in the real engine, answers from a script."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vtpbench.harness.models.tiny import tiny_llava
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.records.cell import Cell
from vtpbench.harness.records.outcome import Outcome
from vtpbench.harness.records.record import BudgetInfo, ModelInfo, PrunerInfo
from vtpbench.harness.run.engine import Engine
from vtpbench.harness.suite.benchmarks import Benchmark, describe
from vtpbench.pruners.errors import UserError

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
            def assemble(self, questions: Any, images: Any) -> Any:
                batch = super().assemble(questions, images)
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
    outcome = play(make(f"right,{named}", TASK + FILTERS))
    assert outcome.status == "ok", outcome.reason
    assert outcome.score == pytest.approx(score)
    assert [sample.answer for sample in outcome.samples] == list(QUESTIONS.values()), "what the model said, unfiltered"
    assert [sample.score for sample in outcome.samples] == [float(s == t) for s, t in zip(seen, TRUTHS.values(), strict=True)]
    assert outcome.metrics["right,letter"] == pytest.approx(2 / 3)
    assert outcome.metrics["right,ends in a letter"] == pytest.approx(1 / 3)


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
    assert "higher_is_better" not in json.loads(better.model_dump_json()), "all else keeps its identity"
    assert json.loads(worse.model_dump_json())["higher_is_better"] is False
