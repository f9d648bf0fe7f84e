"""Which sums a metric is made of.

Every metric here is a sum of ratios of sums over samples: a mean is one ratio (scores over samples), F1 is
2 tp / (2 tp + fp + fn), MME adds one mean per category. A bootstrap replicate is then a weighted sum of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

ROTATION = 1_000_000
"""MMBench numbers the rotations of question i as i + k * 1,000,000."""


@dataclass(frozen=True)
class Parts:
    """What samples, or groups of samples, add to the sums of a metric; a ratio with nothing below it counts 0."""

    row: NDArray[np.int64]
    """Row of the per-sample table (of a group, its first), whose resampling unit the part belongs to; shape (m,)."""
    above: FloatArray
    """Added to the numerators; shape (m, ratios)."""
    below: FloatArray
    """Added to the denominators; shape (m, ratios)."""
    full: float = 1.0
    """A ratio's value where every answer is right; of what is better the less it is, where every answer is wrong."""


@dataclass(frozen=True)
class Metric:
    """How to read a metric from the rows of a per-sample table."""

    parts: Callable[[pd.DataFrame], Parts]
    """Takes the scored rows: `score`, and the fields of the task's own result where the metric needs some."""
    needs: tuple[str, ...] = ()
    """Fields of the task's own result; without them, another task has a metric of this name."""
    decimals: int | None = None
    """Decimals that the task itself rounds its aggregate to."""
    group: Callable[[pd.DataFrame], pd.Series[str]] | None = None
    """Names, for each row, the rows that are scored as one; None = each alone."""


def mean(rows: pd.DataFrame) -> Parts:
    """Mean of the scores: accuracy, exact match, soft VQA accuracy."""
    scored = rows[rows["score"].notna()]
    above = scored["score"].to_numpy(np.float64)[:, None]
    return Parts(_positions(scored), above, np.ones_like(above), max(1.0, above.max(initial=0.0)))  # a task's own may be above 1


def f1(rows: pd.DataFrame) -> Parts:
    """F1 of `yes` as POPE's task computes it: an answer that is neither yes nor no misses nothing."""
    hit, false, missed = _confusion(rows)
    missed &= rows["prediction"] == "no"
    return _ratio(rows, 2 * hit, 2 * hit + false + missed)


def strict_f1(rows: pd.DataFrame) -> Parts:
    """F1 of `yes` as the demo task computes it: whatever is not yes misses what is there."""
    hit, false, missed = _confusion(rows)
    return _ratio(rows, 2 * hit, 2 * hit + false + missed)


def precision(rows: pd.DataFrame) -> Parts:
    """Share of true ones among the answers `yes`."""
    hit, false, _ = _confusion(rows)
    return _ratio(rows, hit, hit + false)


def recall(rows: pd.DataFrame) -> Parts:
    """Share of objects found, as POPE's task computes it; see `f1`."""
    hit, _, missed = _confusion(rows)
    return _ratio(rows, hit, hit + (missed & (rows["prediction"] == "no")))


def strict_recall(rows: pd.DataFrame) -> Parts:
    """Share of objects found, as the demo task computes it; see `strict_f1`."""
    hit, _, missed = _confusion(rows)
    return _ratio(rows, hit, hit + missed)


def mme(rows: pd.DataFrame) -> Parts:
    """Score pairs of questions on one image, 100 x accuracy + 100 x both right: one mean per category, summed.

    Source: Fu et al., MME: A Comprehensive Evaluation Benchmark for Multimodal Large Language Models (arXiv 2306.13394).
    """
    pairs = rows.assign(row=_positions(rows)).groupby(["category", "question_id"], sort=True)
    found = pairs.agg(row=("row", "first"), right=("score", "sum"), n=("score", "size")).reset_index()
    names, category = np.unique(found["category"].to_numpy(str), return_inverse=True)
    points = 100 * found["right"] / found["n"] + 100 * (found["right"] == 2)
    above = np.zeros((len(found), len(names)))
    below = np.zeros_like(above)
    above[np.arange(len(found)), category] = points
    below[np.arange(len(found)), category] = 1
    return Parts(found["row"].to_numpy(np.int64), above, below, 200.0)


def circular(rows: pd.DataFrame) -> Parts:
    """Circular accuracy, per cent: a question counts if all rotations of its options are answered rightly.

    Source: Liu et al., MMBench: Is Your Multi-modal Model an All-around Player? (ECCV 2024), CircularEval.
    """
    known = rows.assign(row=_positions(rows))[rows["score"].notna()]
    index = known["index"].astype(np.int64)
    hits = known.groupby(index % ROTATION)["score"].min()
    asked = known[index < ROTATION]  # rotations without their question do not count
    above = 100 * hits.loc[asked["index"].astype(np.int64)].to_numpy(np.float64)[:, None]
    return Parts(asked["row"].to_numpy(np.int64), above, np.ones_like(above), 100.0)


def mean_of_groups(rows: pd.DataFrame) -> Parts:
    """Mean of the means of MMStar's sub-abilities, as lmms-eval adds up: each counts the same however many questions it has.

    Source: Chen et al., Are We on the Right Way for Evaluating Large Vision-Language Models? (NeurIPS 2024).
    """
    names, group = np.unique(rows["l2_category"].to_numpy(str), return_inverse=True)
    below = np.eye(len(names))[group]
    above = below * rows["score"].to_numpy(np.float64)[:, None] / len(names)
    return Parts(_positions(rows), above, below, 1 / len(names))


def hundredfold(rows: pd.DataFrame) -> Parts:
    """Mean of the scores in per cent, where the task gives its aggregate so."""
    one = mean(rows)
    return Parts(one.row, 100 * one.above, one.below, 100 * one.full)


def named_wrongly(rows: pd.DataFrame) -> Parts:
    """Per cent of the objects in captions that are not there, CHAIR_i.

    Source: Rohrbach et al., Object Hallucination in Image Captioning (EMNLP 2018), section 2.1.
    """
    wrong = [sum(name not in there for name in said) for said, there in zip(rows["pred"], rows["answer"], strict=True)]
    return _ratio(rows, 100 * pd.Series(wrong), rows["pred"].map(len), 100.0)


def named_rightly(rows: pd.DataFrame) -> Parts:
    """Per cent of the objects in pictures that their captions name."""
    found = [len(set(said) & set(there)) for said, there in zip(rows["pred"], rows["answer"], strict=True)]
    return _ratio(rows, 100 * pd.Series(found), rows["answer"].map(lambda there: len(set(there))), 100.0)


def pair(rows: pd.DataFrame) -> pd.Series[str]:
    """Name the pair of each of MME's questions."""
    names: pd.Series[str] = rows["category"].astype(str) + " " + rows["question_id"].astype(str)
    return names


def question(rows: pd.DataFrame) -> pd.Series[str]:
    """Name the question of each of MMBench's rotations."""
    return (rows["index"].astype(np.int64) % ROTATION).astype(str)


_YES_NO = ("prediction", "ground_truth")
_PAIR = ("score", "category", "question_id")
_GROUPED = (Metric(mean_of_groups, ("score", "l2_category")),)
_CAPTION = ("pred", "answer")
METRICS = {
    "pope_f1_score": (Metric(f1, _YES_NO),),
    "pope_precision": (Metric(precision, _YES_NO),),
    "pope_recall": (Metric(recall, _YES_NO),),
    "vtp_f1": (Metric(strict_f1, _YES_NO),),
    "vtp_precision": (Metric(precision, _YES_NO),),
    "vtp_recall": (Metric(strict_recall, _YES_NO),),
    "mme_perception_score": (Metric(mme, _PAIR, group=pair),),
    "mme_cognition_score": (Metric(mme, _PAIR, group=pair),),
    "gpt_eval_score": (Metric(circular, ("index",), group=question), Metric(hundredfold, ("capabilities",))),
    "mmmu_acc": (Metric(mean, decimals=5),),
    "average": _GROUPED,
    **dict.fromkeys(("coarse perception", "fine-grained perception", "instance reasoning"), _GROUPED),
    **dict.fromkeys(("logical reasoning", "science & technology", "math"), _GROUPED),
    "coco_cap_chair_i": (Metric(named_wrongly, _CAPTION),),
    "coco_cap_chair_s": (Metric(hundredfold, _CAPTION),),
    "coco_cap_recall": (Metric(named_rightly, _CAPTION),),
}
"""Metrics by their key in lmms-eval's results, in the forms that tasks give them; any other is taken for a mean, and checked
against the record."""
MEAN = Metric(mean)


def read_as(term: str, fields: Iterable[str]) -> Metric:
    """Find how to read a metric whose samples have these fields: in the first form that needs no others, else as a mean."""
    known = set(fields)
    return next((form for form in METRICS.get(term, ()) if set(form.needs) <= known), MEAN)


def _confusion(rows: pd.DataFrame) -> tuple[Any, Any, Any]:
    said, there = rows["prediction"] == "yes", rows["ground_truth"] == "yes"
    return said & there, said & ~there, ~said & there


def _ratio(rows: pd.DataFrame, above: Any, below: Any, full: float = 1.0) -> Parts:
    return Parts(_positions(rows), above.to_numpy(np.float64)[:, None], below.to_numpy(np.float64)[:, None], full)


def _positions(rows: pd.DataFrame) -> NDArray[np.int64]:
    return rows.index.to_numpy(np.int64)
