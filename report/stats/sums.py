"""From a cell's per-sample table to sums per resampling unit, checked against the score that the task gave."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vtpbench.harness.records.record import BenchmarkInfo
from vtpbench.report.stats.metrics import METRICS, FloatArray, Parts, read_as

MIN_UNITS = 10
"""Fewer units than these say nothing reliable about their own spread."""
TOLERANCE = 1e-6
"""Relative difference from the recorded score up to which the sums are believed."""


class NoInterval(Exception):
    """A cell cannot have an interval; the message says why."""


class NoSamples(NoInterval):
    """There is nothing to resample."""


@dataclass(frozen=True)
class Sums:
    """Score of one cell as scale * sum over ratios of (sum over units above / sum over units below)."""

    units: tuple[str, ...]
    """Resampling units, sorted: images, or samples where there are none."""
    questions: int
    """Hash of which sample belongs to which unit; cells are paired where it is equal."""
    above: FloatArray
    """Shape (units, ratios)."""
    below: FloatArray
    question: FloatArray
    """What one question of usual size adds above, answered rightly, and below; shape (2, ratios)."""
    scale: float = 1.0

    @property
    def score(self) -> float:
        """Score without resampling."""
        return float(self.scale * ratios(self.above.sum(0), self.below.sum(0)).sum())

    @property
    def sizes(self) -> FloatArray:
        """Units that have a share in each ratio."""
        return np.asarray(np.count_nonzero(self.below, axis=0), np.float64)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the score's spread: units - 1; of a sum of ratios, by Welch and Satterthwaite."""
        share = ratios(self.above.sum(0), self.below.sum(0))
        variances = (((self.above - share * self.below) / self.below.sum(0)) ** 2).sum(0)
        return welch(variances, self.sizes - 1)


def ratios(above: FloatArray, below: FloatArray) -> FloatArray:
    """Divide; nothing over nothing is 0, as in the tasks."""
    return np.divide(above, below, out=np.zeros_like(above), where=below != 0)


def welch(variances: FloatArray, freedom: FloatArray) -> float:
    """Degrees of freedom of the spread of a sum of independent terms; the fewest where nothing spreads.

    Source: Welch (Biometrika, 1947) and Satterthwaite (Biometrics Bulletin, 1946).
    """
    if not variances.any():
        return float(freedom.min())
    return float(variances.sum() ** 2 / (variances**2 / freedom).sum())


def summarise(info: BenchmarkInfo, score: float, samples: pd.DataFrame) -> Sums:
    """Sum a cell's samples per unit; `score` is what its record says.

    Raises
    ------
    NoInterval : the sums do not give that score, or there are too few units

    """
    sums = add_up(info, samples)
    if not gives(sums, info, score):
        raise NoInterval(f"the samples give {sums.score:.6g}, the record says {score:.6g}")
    if (fewest := sums.sizes.min()) < MIN_UNITS:
        images = "image" if fewest == 1 else "images"
        raise NoInterval(f"{fewest:g} {images} in the smallest part of the score, {MIN_UNITS} are needed")
    return sums


def add_up(info: BenchmarkInfo, samples: pd.DataFrame) -> Sums:
    """Sum samples per unit: those of a cell, or a part of them, whose score is then `Sums.score`.

    Raises
    ------
    NoInterval : no sample carries a score

    """
    names = _units(samples, info)
    codes, units = pd.factorize(names, sort=True)
    try:
        parts = [_parts(samples, term, alone=len(info.terms) == 1) for term in info.terms]
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as e:  # what a task says of a sample is free
        raise NoInterval(f"what its samples say of {info.metric} cannot be added up") from e
    parts = [part for part in parts if len(part.row)]  # a part of the samples may have none of a term
    if not parts:
        raise NoInterval(f"no sample carries a score for {info.metric}")
    above = np.hstack([_by_unit(codes[p.row], len(units), p.above) for p in parts])
    below = np.hstack([_by_unit(codes[p.row], len(units), p.below) for p in parts])
    question = np.hstack([_usual(p) for p in parts])
    questions = pd.util.hash_pandas_object(samples["sample"].astype(str) + "\t" + names, index=False).sum()
    return Sums(tuple(map(str, units)), int(questions), above, below, question, info.scale)


def gives(sums: Sums, info: BenchmarkInfo, score: float) -> bool:
    """Whether sums over all samples of a cell give the score of its record, but for what its task rounds off."""
    decimals = [form.decimals for term in info.terms for form in METRICS.get(term, ())]
    rounding = sum(0.5 * 10.0**-digits for digits in decimals if digits is not None)
    return abs(sums.score - score) <= TOLERANCE * abs(score) + info.scale * rounding


def together(info: BenchmarkInfo, samples: pd.DataFrame) -> pd.Series[str]:
    """Name, for each sample, those that are scored as one with it: MME's pairs, MMBench's rotations; else itself."""
    names: pd.Series[str] = samples["sample"].astype(str)
    for term in info.terms:
        if all(form.group is None for form in METRICS.get(term, ())):
            continue
        rows = _detail(samples, samples[["score"]], term)
        group = read_as(term, rows.columns).group
        if group is not None:
            names = names.where(~names.index.isin(rows.index), term + " " + group(rows).reindex(names.index).astype(str))
    return names


def _units(samples: pd.DataFrame, info: BenchmarkInfo) -> pd.Series[str]:
    """Name the unit of each sample; questions without an image get names that no other benchmark has."""
    names: pd.Series[str] = samples["image"].astype(str)
    without = names == ""
    return names.mask(without, info.dataset + ":" + samples["sample"].astype(str)) if without.any() else names


def _parts(samples: pd.DataFrame, term: str, *, alone: bool) -> Parts:
    rows = samples[["score"]].reset_index(drop=True)
    if not alone or any(form.needs for form in METRICS.get(term, ())):
        rows = _detail(samples, rows, term)
    return read_as(term, rows.columns).parts(rows)


def _detail(samples: pd.DataFrame, rows: pd.DataFrame, term: str) -> pd.DataFrame:
    """Rows that have the task's own result for a term, with its fields as columns."""
    values: list[Any] = [json.loads(text).get(term) for text in samples["detail"]]
    fields = pd.DataFrame([value if isinstance(value, dict) else {"score": value} for value in values], index=rows.index)
    if "score" not in fields:
        fields["score"] = rows["score"]
    known: pd.DataFrame = fields[[value is not None for value in values]]
    return known


def _usual(part: Parts) -> FloatArray:
    """Average what questions add below, of those that do, and what they would add above if right; shape (2, ratios)."""
    asked = part.below.sum(0) / np.maximum(np.count_nonzero(part.below, axis=0), 1)
    return np.stack([part.full * asked, asked])


def _by_unit(unit: NDArray[np.int64], n: int, values: FloatArray) -> FloatArray:
    """Sum rows of one unit; shape (n, ratios)."""
    return np.stack([np.bincount(unit, weights=column, minlength=n) for column in values.T], axis=1)
