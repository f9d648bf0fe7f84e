"""From lmms-eval's results to a cell's outcome: the score, its error, the rows per sample, and the audit of the counts."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vtpbench.harness.records.answer_shares import AnswerShares, count_shares
from vtpbench.harness.records.cell import Answer, Cell, Sample, tokens_for
from vtpbench.harness.records.outcome import Outcome, Swept
from vtpbench.harness.records.record import FIXED_DIVISORS, NO_FILTER, BatchInfo, BenchmarkInfo, Observed, agree
from vtpbench.harness.run.sample_scores import is_number, sample_score
from vtpbench.pruners.base import ModelShape, Pruner
from vtpbench.pruners.budget import met
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    from vtpbench.harness.run.answering import Answerer

ROUNDED = 1e-5
"""What a task may round off its metric; MMMU keeps five decimals."""


@dataclass(frozen=True)
class Evaluated:
    """What lmms-eval said of one task, and what answered it."""

    results: Mapping[str, Any]
    samples: list[dict[str, Any]]
    """Of the filter whose numbers count."""
    answers: Mapping[str, Answer]
    category: str = "category"
    """Column of a question that names its ability; dots lead to a field within it."""
    is_mean: bool = False
    """Whether the task declares its score to be the mean of the samples' scores."""


@dataclass(frozen=True)
class Scored:
    """What a task makes of answers: the sum of the metrics that are its score, every number that it gives, and its samples."""

    total: float
    metrics: dict[str, float]
    rows: list[Sample]


def scored(info: BenchmarkInfo, evaluated: Evaluated) -> Scored:
    """Take the score of a benchmark from an evaluation, and the rows of its samples.

    Raises
    ------
    UserError : none of the questions that a limit left has the metric, or its value is no finite number

    """
    metrics = {k.removesuffix(f",{NO_FILTER}"): float(v) for k, v in evaluated.results.items() if "," in k and is_number(v)}
    keys = {term: f"{term},{info.filter}" for term in info.terms}
    counted = {term: key for term, key in keys.items() if key in evaluated.results}  # of MME, a limit may leave one of its two
    if not counted:
        raise UserError(_not_counted(info, evaluated.results))
    for term, key in counted.items():
        if not is_number(evaluated.results[key]):
            given = f"task {info.task} gives {term} = {evaluated.results[key]!r}, no finite number"
            raise UserError(f"{given}; mend the task, or name another metric")
    rows = [_sample(each, info.terms, evaluated.answers[str(each["doc_id"])], evaluated.category) for each in evaluated.samples]
    return Scored(
        total=sum(of_those_asked(term, float(evaluated.results[key]), len(rows)) for term, key in counted.items()),
        metrics={k: v for k, v in metrics.items() if "stderr" not in k},
        rows=rows,
    )


def outcome(cell: Cell, pruner: Pruner, shape: ModelShape, evaluated: Evaluated) -> Outcome:
    """Turn an evaluation into a cell's result; where the counts are not what was asked for, it fails and has no score.

    What its answers have cost, whoever let them be given adds.

    Raises `UserError` as `scored` does.
    """
    found, answers = scored(cell.benchmark, evaluated), list(evaluated.answers.values())
    contradiction = _contradiction(found.rows, found.total) if evaluated.is_mean else None
    problem = _audit(cell, pruner, shape, answers) or contradiction
    scores = [row.score for row in found.rows]
    return Outcome(
        status="failed" if problem else "ok",
        reason=problem,
        score=None if problem else cell.benchmark.scale * found.total,
        stderr=None if problem else standard_error(cell.benchmark, scores, found.total),
        metrics=found.metrics,
        n=len(found.rows),
        answers=_shares(found.rows, evaluated.answers),
        observed=_observed(answers, shape.decoder_layers),
        samples=found.rows,
    )


def of_those_asked(term: str, value: float, asked: int) -> float:
    """Divide a metric by the questions that were asked where its task divides by a fixed number: a limit leaves fewer."""
    return value * FIXED_DIVISORS[term] / asked if term in FIXED_DIVISORS else value


def cost_of(cell: Cell, answerer: Answerer) -> Swept:
    """Say what the answers of a cell have cost, and how they were batched and decoded."""
    pipeline = answerer.pipeline
    replayed, refused = pipeline.model.graphs_of(type(pipeline.pruner).__name__) if pipeline.graphs else ([], {})
    batch = BatchInfo(
        requested=cell.batch_size,
        smallest=answerer.smallest,
        share_prefix=cell.share_prefix,
        graphs=pipeline.graphs,
        graphs_replayed=replayed,
        graphs_refused="; ".join(f"{name}: {why}" for name, why in refused.items()) or None,
    )
    return Swept(answerer.seconds, batch)


def _not_counted(info: BenchmarkInfo, results: Mapping[str, Any]) -> str:
    """Say what a task gives instead of the metric that was asked for."""
    if info.limit is not None:
        return f"no question that was asked counts for {info.metric}; ask more, or give a limit_seed"
    given = [key.removesuffix(f",{NO_FILTER}") for key, value in results.items() if is_number(value) and "_stderr" not in key]
    return f"task {info.task} gives no {info.metric}; it gives {', '.join(given) or 'nothing'}"


def _shares(rows: list[Sample], answers: Mapping[str, Answer]) -> AnswerShares | None:
    ended = [answers[row.sample].ended for row in rows]
    return count_shares([row.answer for row in rows], ended, [row.target for row in rows])


def _sample(sample: dict[str, Any], terms: tuple[str, ...], answer: Answer, category: str) -> Sample:
    per_image = [_mean(counts) for counts in answer.per_layer]
    own = {k: v for k, v in sample.items() if k in terms}
    metric, item = next(iter(own.items()), ("", None))
    return Sample(
        sample=answer.sample,
        image=answer.images[0] if answer.images else "",
        category=_field(sample.get("doc"), category),
        prompt=str(sample["arguments"][0] if isinstance(sample["arguments"], (list, tuple)) else sample["arguments"]),
        answer=answer.text,
        target=str(sample["target"]),
        score=sample_score(metric, item),
        tokens=_mean(per_image),
        detail=json.dumps(own, default=str, ensure_ascii=False),
        kept=json.dumps([dataclasses.asdict(image) for image in answer.kept]) if answer.kept else "",
        images=" ".join(answer.images),
        perceptual_hash=answer.perceptual_hash,
    )


def _field(doc: Any, path: str) -> str:
    """Follow a dotted path into a question; nothing there is an empty text, several values are joined."""
    for name in path.split("."):
        doc = doc.get(name) if isinstance(doc, Mapping) else None
    return ", ".join(map(str, doc)) if isinstance(doc, (list, tuple)) else "" if doc is None else str(doc)


def _observed(answers: list[Answer], layers: int) -> Observed:
    counts = [c for answer in answers for c in answer.per_layer]
    originals = [n for answer in answers for n in answer.original]
    per_layer = [_mean([c[layer] for c in counts]) for layer in range(layers)] if counts else [0.0] * layers
    return Observed(
        tokens=_mean(per_layer),
        original=_mean(originals),
        per_layer=per_layer,
        images=len(counts),
        answer_tokens=_mean([answer.written for answer in answers]) if answers else None,
    )


def _audit(cell: Cell, pruner: Pruner, shape: ModelShape, answers: list[Answer]) -> str | None:
    """Compare the counts of the forward passes with what was asked for."""
    for answer in answers:
        for original, counts in zip(answer.original, answer.per_layer, strict=True):
            budget = original if cell.is_vanilla else tokens_for(cell.budget, original)
            expected = pruner.expected_average(budget, original, shape)
            if not met(_mean(counts), expected, adaptive=pruner.adaptive):
                seen = f"{_mean(counts):.2f} vision tokens entered a layer on average, {expected:.2f} were due"
                return f"sample {answer.sample}: {seen} (image of {original} tokens, per layer {list(counts)})"
    return None


def _contradiction(rows: list[Sample], total: float) -> str | None:
    """Compare the score of a task with the scores of its samples, of which it declares it to be the mean."""
    scores = [row.score for row in rows if row.score is not None]
    if len(scores) < len(rows) or agree(_mean(scores), total):
        return None
    return f"the task gives {total:.6g} as the mean of its samples, whose scores have the mean {_mean(scores):.6g}; mend the task"


def standard_error(info: BenchmarkInfo, scores: list[float | None], mean: float) -> float | None:
    """Estimate the standard error of the score where it is the mean of the per-sample scores, else None."""
    numbers = [s for s in scores if s is not None]
    if len(numbers) < max(2, len(scores)) or abs(_mean(numbers) - mean) > ROUNDED:
        return None
    variance = sum((s - mean) ** 2 for s in numbers) / (len(numbers) - 1)
    return info.scale * math.sqrt(variance / len(numbers))


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return float(sum(numbers) / len(numbers)) if numbers else 0.0
