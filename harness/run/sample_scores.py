"""Scores of single samples, where a task's own results have none: its official rules, applied to one sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Item = Mapping[str, Any]


def sample_score(metric: str, item: Any) -> float | None:
    """Score of one sample by a metric of lmms-eval, 0-1 for the ten official benchmarks; None where there is none.

    Parameters
    ----------
    metric : key in lmms-eval's results, such as `exact_match`
    item : what the task's `process_results` gave for this sample: a number, or a mapping

    """
    score: Any = item.get("score") if isinstance(item, Mapping) else item
    if score is None and isinstance(item, Mapping) and metric in _RULES:
        score = _RULES[metric](item)
    return float(score) if is_number(score) else None


def _letter(item: Item) -> bool:
    """SEED-Bench: the first character of the answer is the letter."""
    return bool(item["pred"].lower().strip() == item["answer"].lower().strip())


def _mmmu(item: Item) -> float:
    """MMMU: as its aggregation judges a sample alone."""
    from lmms_eval.tasks.mmmu.utils import evaluate_mmmu

    return float(evaluate_mmmu([item])[1]["acc"])


def _rotation(item: Item) -> bool:
    """MMBench: one rotation of a question, its letter or option read by rule, without a judge."""
    from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer
    from lmms_eval.tasks.mmbench.mmbench_evals import MMBench_Evaluator

    judge = MMBench_Evaluator()
    letter = judge.prefetch_answer(item) or extract_mcq_answer(item["prediction"], choices=sorted(judge.build_choices(item)))
    return bool(letter == item["answer"])


_RULES: dict[str, Callable[[Item], float | bool]] = {
    "gpt_eval_score": _rotation,
    "mmmu_acc": _mmmu,
    "seed_all": _letter,
    "seed_image": _letter,
    "seed_video": _letter,
}


def is_number(value: object) -> bool:
    """Whether a value is a finite number, numpy's scalars included."""
    try:
        return not isinstance(value, (str, list, dict)) and math.isfinite(float(value))  # type: ignore[arg-type]  # refused below
    except (TypeError, ValueError):
        return False
