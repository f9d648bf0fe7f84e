"""The ability that each official question is about, and draws of questions that the official scorers can score."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from datasets import Dataset

from vtpbench.harness.run.subset import drawn, groups_of
from vtpbench.harness.run.task_loading import TaskLoader
from vtpbench.harness.suite.benchmarks import Benchmark, describe, registry
from vtpbench.pruners.errors import UserError

ABILITIES = {
    "gqa": ["query"] * 4,
    "mmbench": ["identity"] * 4 + ["spatial"] * 4 + ["physics"] * 4,
    "scienceqa": ["x"] * 5,
    "textvqa": [""] * 4,
    "vqav2": ["other"] * 4,
    "vizwiz": ["unanswerable", "yes/no", "number", "other"],
    "seed": ["1", "2", "3", "4", "5"],
    "realworldqa": [""] * 4,
    "ai2d": [""] * 4,
    "refcoco": [""] * 4,
    "mmbench-cn": ["identity"] * 3 + ["spatial"] * 2,
}
"""As in the rows' own columns, in which some have none; MMMU's subject stands in its task's own result."""
WITHOUT = {"textvqa", "realworldqa", "ai2d", "refcoco"}


@pytest.mark.parametrize("label", ABILITIES)
def test_the_ability_is_that_of_the_official_column(play, label: str, official) -> None:
    answers = ["no"] * len(official.PROMPTS[label])
    assert [sample.category for sample in play(label, answers).outcome.samples] == ABILITIES[label]


def test_another_column_can_be_named_and_one_that_is_not_there_is_no_ability(play) -> None:
    answers = ["no"] * 4
    assert [s.category for s in play("gqa", answers, category="types.semantic").outcome.samples] == ["attr"] * 4
    assert [s.category for s in play("gqa", answers, category="types.nothing").outcome.samples] == [""] * 4
    assert [s.category for s in play("gqa", answers, category="question.of").outcome.samples] == [""] * 4


@pytest.mark.parametrize("label", ABILITIES)
def test_the_named_column_is_one_of_the_published_ones(official, label: str) -> None:
    _, features, _ = official.TABLES[label]()
    named = registry()[label].category
    assert (named.partition(".")[0] in features) == (label not in WITHOUT)


@pytest.mark.parametrize(
    "label", [label for label, benchmark in registry().items() if benchmark.together and not benchmark.folder]
)
def test_what_is_drawn_together_is_named_by_a_published_column(official, label: str) -> None:
    _, features, _ = official.TABLES[label]()
    assert registry()[label].together in features


@pytest.mark.parametrize("label", ["docvqa", "infovqa"])
def test_a_seeded_limit_draws_whole_pages(play, official, label: str) -> None:
    prompts = drawn_prompts(official, label, 1, 1)
    played = play(label, ["x"] * len(prompts), prompts=prompts, limit=1, limit_seed=1)
    assert len({sample.image for sample in played.outcome.samples}) == 1
    assert len(played.outcome.samples) == len(prompts)


def test_all_descriptions_in_a_picture_are_drawn_together(official, tmp_path) -> None:
    benchmark = Benchmark.model_validate({"refcoco": {"overrides": official.write("refcoco", tmp_path)}})
    with TaskLoader().load(benchmark, describe(benchmark, None, {})) as loaded:
        groups = groups_of(loaded.task.dataset["val"], benchmark.together)
    assert [groups.index(name) for name in groups] == [0, 0, 0, 3]


def drawn_prompts(official, label: str, n: int, seed: int) -> list[str]:
    _, features, rows = official.TABLES[label]()
    groups = groups_of(Dataset.from_list(rows, features=features), registry()[label].together)
    return [official.PROMPTS[label][i] for i in drawn(groups, n, seed)]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_seeded_limit_draws_whole_pairs_of_mme(play, official, seed: int) -> None:
    prompts = drawn_prompts(official, "mme", 3, seed)
    truth = dict(zip(official.PROMPTS["mme"], (answer for *_, answer in official.MME), strict=True))
    played = play("mme", [truth[prompt] for prompt in prompts], prompts=prompts, limit=3, limit_seed=seed)
    categories = {sample.category for sample in played.outcome.samples}
    assert len(played.outcome.samples) == 4
    assert played.outcome.score == 200 * len(categories), "with or without questions of cognition"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_seeded_limit_draws_whole_rotations_of_mmbench(play, official, seed: int) -> None:
    prompts = drawn_prompts(official, "mmbench", 5, seed)
    played = play("mmbench", ["A"] * len(prompts), prompts=prompts, limit=5, limit_seed=seed)
    options = {number: len(choices) for number, _, _, choices, _ in official.MMBENCH}
    asked = [json.loads(sample.detail)["gpt_eval_score"]["index"] for sample in played.outcome.samples]
    assert Counter(index % 1_000_000 for index in asked) == {index: options[index] for index in asked if index < 1_000_000}
    assert played.outcome.score == 0, "one letter is never right in all rotations"


def test_a_limit_that_leaves_no_question_of_the_metric_is_named(play, official) -> None:
    prompts = official.PROMPTS["mme"][:4]
    with pytest.raises(UserError, match="no question that was asked counts for mme_cognition_score; ask more"):
        play("mme", ["Yes", "No"] * 2, prompts=prompts, limit=4, metric="mme_cognition_score")
