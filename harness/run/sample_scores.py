"""Scores of single samples, where a task's own results have none: its official rules, applied to one sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

Item = Mapping[str, Any]


def sample_score(metric: str, item: Any) -> float | None:
    """Score of one sample by a metric of lmms-eval, 0-1 for the registered benchmarks; None where there is none.

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


def _overlap(item: Item) -> float:
    """RefCOCO: intersection over union of the box that was said and the right one, fractions of the picture."""
    from lmms_eval.tasks.refcoco.utils_rec import compute_iou

    return float(compute_iou(item["bbox"], item["pred"]))


def _overlaps_by(share: float, item: Item) -> bool:
    return _overlap(item) >= share


def _centred(item: Item) -> bool:
    """RefCOCO: the centre of the box that was said lies in the right one."""
    from lmms_eval.tasks.refcoco.utils_rec import compute_center_accuracy

    return bool(compute_center_accuracy(item["bbox"], item["pred"]))


def _share_not_there(item: Item) -> float | None:
    """CHAIR: share of the objects in a caption that are not in the picture; None where it names none."""
    wrong = [name not in item["answer"] for name in item["pred"]]
    return sum(wrong) / len(wrong) if wrong else None


def _any_not_there(item: Item) -> bool:
    return not set(item["pred"]) <= set(item["answer"])


def _share_named(item: Item) -> float | None:
    """Share of the objects in the picture that the caption names; None where there are none."""
    there = set(item["answer"])
    return len(there & set(item["pred"])) / len(there) if there else None


_RULES: dict[str, Callable[[Item], float | bool | None]] = {
    "coco_cap_chair_i": _share_not_there,
    "coco_cap_chair_s": _any_not_there,
    "coco_cap_recall": _share_named,
    "gpt_eval_score": _rotation,
    "mmmu_acc": _mmmu,
    **{f"refcoco_ACC@{share}": partial(_overlaps_by, share) for share in (0.1, 0.3, 0.5, 0.7, 0.9)},
    "refcoco_Center_ACC": _centred,
    "refcoco_IoU": _overlap,
    "seed_all": _letter,
    "seed_image": _letter,
    "seed_video": _letter,
}


def is_number(value: object) -> bool:
    """Whether a value is a finite number, numpy's scalars included."""
    try:
        return not isinstance(value, (str, list, dict)) and math.isfinite(float(value))  # type: ignore[arg-type]  # refused below
    except (TypeError, ValueError, OverflowError):  # the last of a whole number of many digits
        return False
