"""The sums behind a score: equal to what the official tasks of lmms-eval compute, resampled or not."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from runpy import run_path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vtpbench.report.stats.sums import NoInterval, Sums, ratios, summarise

data = SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "stats_data.py")))


@cache
def official(file: str) -> ModuleType:
    """A file of lmms-eval's tasks, without the package around it, which takes long to import."""
    package = importlib.util.find_spec("lmms_eval")
    path = Path(package.submodule_search_locations[0]) / "tasks" / file
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def items(table: pd.DataFrame, term: str) -> list[dict[str, Any]]:
    found = [json.loads(text).get(term) for text in table["detail"]]
    return [item for item in found if item is not None]


def official_pope(table: pd.DataFrame) -> float:
    return official("pope/utils.py").pope_aggregate_f1_score(items(table, "pope_f1_score"))


def official_mme(table: pd.DataFrame) -> float:
    terms = ("mme_perception_score", "mme_cognition_score")
    return sum(official("mme/utils.py").mme_aggregate_results(items(table, term)) for term in terms)


def official_mmbench(table: pd.DataFrame) -> float:
    judge = official("mmbench/mmbench_evals.py").MMBench_Evaluator()
    return 100 * judge.eval_result(items(table, "gpt_eval_score"), eval_method="static")[0]


def renamed(table: pd.DataFrame, copy: int) -> pd.DataFrame:
    """A second helping of some samples, which the tasks take for other questions."""

    def rename(text: str) -> str:
        detail = json.loads(text)
        for item in detail.values():
            if "index" in item:
                item["index"] += 1000 * copy
            else:
                item["question_id"] = f"{item['question_id']} copy {copy}"
        return json.dumps(detail)

    return table.assign(detail=table["detail"].map(rename))


def resampled(sums: Sums, weights: np.ndarray) -> float:
    return float(sums.scale * ratios(weights @ sums.above, weights @ sums.below).sum())


CASES = [
    (data.pope, "pope_f1_score", official_pope),
    (data.mme, "mme_perception_score + mme_cognition_score", official_mme),
    (data.mmbench, "gpt_eval_score", official_mmbench),
]
Case = tuple[Callable[..., pd.DataFrame], str, Callable[[pd.DataFrame], float]]


@pytest.mark.parametrize("case", CASES, ids=["POPE", "MME", "MMBench"])
@pytest.mark.parametrize("seed", range(2))
def test_sums_give_the_official_score(case: Case, seed: int) -> None:
    make, metric, score = case
    table = make(np.random.default_rng(seed))
    assert summarise(data.info(metric), score(table), table).score == pytest.approx(score(table), rel=1e-12)


@pytest.mark.parametrize("case", CASES, ids=["POPE", "MME", "MMBench"])
def test_a_replicate_is_the_official_score_of_the_images_drawn(case: Case) -> None:
    make, metric, score = case
    generator = np.random.default_rng(5)
    table = make(generator)
    sums = summarise(data.info(metric), score(table), table)
    drawn = generator.multinomial(len(sums.units), [1 / len(sums.units)] * len(sums.units))
    copies = [renamed(table[table["image"] == unit], k) for unit, n in zip(sums.units, drawn, strict=True) for k in range(n)]
    assert resampled(sums, drawn.astype(float)) == pytest.approx(score(pd.concat(copies)), rel=1e-12)


def test_a_mean_may_be_soft_scaled_and_without_some_samples() -> None:
    table = data.scored([0.3, None, 1.0, 0.6, 0.9] * 6, [f"i{k % 12}" for k in range(30)])
    sums = summarise(data.info("seed_image", scale=100), 70.0, table)
    assert (sums.score, len(sums.units), sums.below.sum()) == (pytest.approx(70.0), 12, 24)


def test_a_sum_of_unknown_metrics_is_a_sum_of_means() -> None:
    table = data.frame([(f"i{k}", 1.0, {"a": k % 2, "b": {"score": 0.5}} if k else {"a": None}) for k in range(21)])
    assert summarise(data.info("a + b"), 1.0, table).score == pytest.approx(1.0)


def test_a_known_name_with_other_contents_is_taken_for_a_mean() -> None:
    table = data.frame([(f"i{k}", 0.5, {"gpt_eval_score": {"score": 0.5}}) for k in range(20)])
    assert summarise(data.info("gpt_eval_score"), 0.5, table).score == 0.5


def test_mmmu_is_compared_as_rounded_as_its_task_gives_it() -> None:
    table = data.scored([1.0] * 5 + [0.0] * 7, [f"i{k}" for k in range(12)], "mmmu_acc")
    assert summarise(data.info("mmmu_acc", 100), 41.667, table).score == pytest.approx(100 * 5 / 12)
    with pytest.raises(NoInterval, match=r"the samples give 41\.6667, the record says 41\.667"):
        summarise(data.info("exact_match", 100), 41.667, table)


def test_a_score_that_the_samples_do_not_give_is_refused() -> None:
    table = data.pope(np.random.default_rng(0))
    with pytest.raises(NoInterval, match=r"the record says 0\.5"):
        summarise(data.info("pope_f1_score"), 0.5, table)
    with pytest.raises(NoInterval, match="no sample carries a score for other"):
        summarise(data.info("other"), 0.5, table.assign(score=np.nan))


def test_few_units_are_refused_in_every_part_of_a_score() -> None:
    few = data.mme(np.random.default_rng(0), pairs=9)
    with pytest.raises(NoInterval, match="9 images in the smallest part of the score, 10 are needed"):
        summarise(data.info("mme_perception_score + mme_cognition_score"), official_mme(few), few)


def test_questions_without_an_image_are_units_that_no_other_benchmark_shares() -> None:
    table = data.scored([1.0, 0.0] * 10, [""] * 20)
    one, other = (summarise(data.info("exact_match", dataset=name), 0.5, table) for name in ("a", "b"))
    assert len(one.units) == 20
    assert not set(one.units) & set(other.units)


def test_order_of_samples_changes_nothing_but_their_images_do() -> None:
    table = data.pope(np.random.default_rng(1))
    score = official_pope(table)
    one, other = (summarise(data.info("pope_f1_score"), score, t) for t in (table, table[::-1]))
    assert (one.units, one.questions) == (other.units, other.questions)
    np.testing.assert_array_equal(one.above, other.above)
    moved = table.assign(image=np.roll(table["image"], 1))
    assert summarise(data.info("pope_f1_score"), score, moved).questions != one.questions


def test_degrees_of_freedom_are_those_of_the_parts_that_spread() -> None:
    generator = np.random.default_rng(2)
    plain = summarise(data.info("pope_f1_score"), official_pope(t := data.pope(generator, 50)), t)
    assert plain.freedom == (plain.below > 0).sum() - 1
    parts = summarise(data.info("mme_perception_score + mme_cognition_score"), official_mme(t := data.mme(generator)), t)
    assert 14 < parts.freedom <= 7 * 14
