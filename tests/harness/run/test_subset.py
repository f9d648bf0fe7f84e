"""Questions drawn by a seed: whole groups, wherever they lie, and the same in the real engine."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import datasets
import pytest
import torch

from vtpbench.harness.records.record import DrawInfo
from vtpbench.harness.run.engine import open_engine
from vtpbench.harness.run.job import RunOptions, make_job
from vtpbench.harness.run.subset import draw_questions, drawn, groups_of, keep_questions
from vtpbench.harness.suite.benchmarks import Benchmark, describe, registry
from vtpbench.pruners.errors import UserError

GROUPS = [f"image {i // 6}" for i in range(600)]


@pytest.fixture(scope="module")
def official(request: pytest.FixtureRequest) -> SimpleNamespace:
    return SimpleNamespace(**run_path(str(request.config.rootpath / "tests/harness/official/official_data.py")))


def names(positions: list[int], groups: list[str]) -> Counter[str]:
    return Counter(groups[i] for i in positions)


def test_a_draw_takes_whole_groups_until_there_are_enough() -> None:
    chosen = drawn(GROUPS, 100, seed=0)
    assert len(chosen) == 102
    assert set(names(chosen, GROUPS).values()) == {6}
    assert chosen == sorted(chosen)
    assert drawn(GROUPS, 1000, seed=0) == list(range(600))


def test_a_draw_depends_on_the_seed_and_on_no_order() -> None:
    first = names(drawn(GROUPS, 100, seed=0), GROUPS)
    backwards = GROUPS[::-1]
    assert names(drawn(backwards, 100, seed=0), backwards) == first
    assert names(drawn(GROUPS, 100, seed=1), GROUPS) != first
    assert set(drawn(GROUPS, 50, seed=0)) < set(drawn(GROUPS, 100, seed=0))


def test_a_draw_is_spread_over_all_questions() -> None:
    """Every question is as likely as any other: over 400 seeds each group of 100 comes 20 times, give or take."""
    seen = Counter(name for seed in range(400) for name in names(drawn(GROUPS, 30, seed), GROUPS))
    assert sum(seen.values()) == 400 * 5
    assert min(seen.values()) > 4
    assert max(seen.values()) < 45


def rows(official: SimpleNamespace, label: str) -> datasets.Dataset:
    _, features, made = official.TABLES[label]()
    return datasets.Dataset.from_list(made, features=features)


@pytest.mark.parametrize("label", ["gqa", "mmbench", "mme", "pope", "scienceqa", "textvqa", "vqav2", "vizwiz", "mmmu", "seed"])
def test_official_questions_stay_with_those_that_belong_to_them(official: SimpleNamespace, label: str) -> None:
    found = groups_of(rows(official, label), registry()[label].together)
    sizes = sorted(Counter(found).values())
    expected = {
        "mmbench": [2, 2, 4, 4],  # rotations
        "mme": [2, 2, 2, 2],  # pairs
        "pope": [4, 4],  # images over all strata
        "vqav2": [2, 2],
        "scienceqa": [1, 1, 1, 1, 1],  # one of them without a picture
    }
    assert sizes == expected.get(label, [1] * len(found))


def test_pictures_name_groups_where_no_column_does(official: SimpleNamespace) -> None:
    questions = rows(official, "pope")
    by_picture, by_column = groups_of(questions, ""), groups_of(questions, "image_source")
    assert len(set(zip(by_picture, by_column, strict=True))) == len(set(by_column)) == len(set(by_picture))
    assert len(set(groups_of(questions.remove_columns("image"), ""))) == len(questions)


def test_a_column_that_is_not_there_is_named(official: SimpleNamespace) -> None:
    with pytest.raises(UserError, match=r"no column 'image_id' .*image_source"):
        groups_of(rows(official, "pope"), "image_id")


def test_a_task_keeps_what_is_drawn_with_and_without_its_pictures(official: SimpleNamespace) -> None:
    questions = rows(official, "pope")
    task = SimpleNamespace(
        config=SimpleNamespace(test_split="test", validation_split=None),
        dataset={"test": questions, "train": questions},
        dataset_no_image={"test": questions.remove_columns("image"), "train": questions},
    )
    keep_questions(task, draw_questions(task, 3, DrawInfo(seed=0, together="image_source")))
    assert len(set(task.dataset["test"]["image_source"])) == 1
    assert list(task.dataset_no_image["test"]["id"]) == list(task.dataset["test"]["id"]) == list(task.task_docs["id"])
    assert len(task.dataset["train"]) == 8
    whole = SimpleNamespace(config=task.config, dataset={"test": questions})
    whole.dataset_no_image = whole.dataset
    keep_questions(whole, draw_questions(whole, 3, DrawInfo(seed=0, together="image_source")))
    assert len(whole.dataset["test"]) == 4


def test_the_draw_is_part_of_the_identity_and_absent_without_a_seed() -> None:
    folder = {"demo-exist": {}}
    plain = describe(Benchmark.model_validate(folder), 20, {})
    seeded = describe(Benchmark.model_validate(folder), 20, {}, 0)
    assert plain.model_dump()["draw"] is None
    assert seeded.model_dump()["draw"] == {"seed": 0, "together": "image_id"}
    assert seeded != describe(Benchmark.model_validate(folder), 20, {}, 1)
    assert describe(Benchmark.model_validate(folder), None, {}, 0).draw is None, "all questions are not drawn"
    own = Benchmark.model_validate({"demo-exist": {"limit": 6, "limit_seed": 4, "together": ""}})
    info = describe(own, 20, {}, 0)
    assert (info.limit, info.draw) == (6, DrawInfo(seed=4, together=""))
    assert type(info).model_validate_json(info.model_dump_json()) == info


def test_the_engine_asks_the_drawn_questions_alone(tiny_checkpoint: Path, tmp_path: Path, one_thread: None) -> None:
    models = f"models=[{{label: tiny, path: {tiny_checkpoint}, dtype: float32}}]"
    matrix = "matrix={pruners: [random], budgets: [6], benchmarks: [demo-exist]}"
    job = make_job("demo", RunOptions(tmp_path, (), [models, matrix, "limit_seed=0"], 12, 4), print)
    engine, benchmark = open_engine(job.models["tiny"], torch.device("cpu"), 4), job.suite.benchmarks["demo-exist"]
    journal = SimpleNamespace(known=dict, add=lambda answers: None)
    vanilla, pruned = job.cells
    outcomes = [engine.run(cell, benchmark, journal, lambda done, of: None) for cell in (vanilla, pruned)]
    asked = [[(s.sample, s.image, s.prompt) for s in outcome.samples] for outcome in outcomes]
    assert asked[0] == asked[1]
    assert 12 <= len(asked[0]) < 12 + 8
    table = datasets.load_dataset("parquet", data_files=str(benchmark.file.parent / "data/exist.parquet"), split="train")
    positions = drawn(groups_of(table, "image_id"), 12, seed=0)
    assert [prompt.splitlines()[0] for _, _, prompt in asked[0]] == [table[i]["question"] for i in positions]
    first = replace(vanilla, benchmark=vanilla.benchmark.model_copy(update={"draw": None}))
    plain = engine.run(first, benchmark, journal, lambda done, of: None)
    assert [s.prompt for s in plain.samples] != [prompt for _, _, prompt in asked[0]], "a draw changes no other cell's task"
    assert len(plain.samples) == 12
