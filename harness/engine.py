"""The one module that imports lmms-eval: its tasks ask and score, the three steps of a `Family` answer.

One engine holds one model. Model and tasks are loaded once; every cell is one `simple_evaluate` call with a task object.
lmms-eval's response cache, baseline test, result files and process groups are not used.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from lmms_eval.api.model import lmms
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager, get_task_dict
from loguru import logger

from vtpbench.harness.answering import Answerer, Question, image_name
from vtpbench.harness.benchmarks import task_config
from vtpbench.harness.cell import Answer, Cell, Journal, Sample, tokens_for
from vtpbench.harness.outcome import Outcome
from vtpbench.harness.record import BatchInfo, Observed
from vtpbench.pruners.base import ModelShape, Pruner
from vtpbench.pruners.registry import build

if TYPE_CHECKING:
    from vtpbench.harness.benchmarks import Benchmark
    from vtpbench.harness.models.family import Family

TOLERANCE_TOKENS, TOLERANCE_SHARE = 1.0, 0.01
"""A cell whose observed average is off by more than both of these fails."""


class Engine:
    """One loaded model, its tasks, and the lmms-eval adapter between them."""

    def __init__(self, family: Family, batch_size: int) -> None:
        self.family, self.batch_size = family, batch_size
        self._tasks: dict[str, Any] = {}

    def run(self, cell: Cell, benchmark: Benchmark, journal: Journal, progress: Callable[[int, int], None]) -> Outcome:
        """Answer and score one cell; answers that the journal knows are not asked for again."""
        pruner = build(cell.pruner.name, _options(cell))
        adapter = _Adapter(self.family, cell, pruner, journal, progress, self.batch_size)
        with quiet():
            name, task = self._task(benchmark)
            results = simple_evaluate(
                adapter,
                tasks=[task],
                limit=cell.benchmark.limit,
                bootstrap_iters=0,
                process_docs_parallel=1,
                random_seed=0,
                cli_args=SimpleNamespace(process_with_media=False, output_path=None),
            )
        return _outcome(cell, pruner, self.family.shape, results["results"][name], results["samples"][name], adapter)

    def _task(self, benchmark: Benchmark) -> tuple[str, Any]:
        """Load a task once; the object can be evaluated many times."""
        if benchmark.label not in self._tasks:
            manager = TaskManager(include_defaults=False, include_path=str(benchmark.file.parent))
            found = get_task_dict([task_config(benchmark)], manager)
            task = next(iter(found.values()))
            task._config.metric_list = [m for m in task._config.metric_list if m["metric"] not in benchmark.drop]
            self._tasks[benchmark.label] = (next(iter(found)), task)
        name, task = self._tasks[benchmark.label]
        return name, task


class _Adapter(lmms):  # type: ignore[misc] # lmms-eval is untyped
    """What lmms-eval takes for a model during one cell."""

    is_simple = True

    def __init__(
        self, family: Family, cell: Cell, pruner: Pruner, journal: Journal, progress: Callable[[int, int], None], batch: int
    ) -> None:
        super().__init__()
        self.accelerator = None  # keeps lmms-eval from building one
        self._cell, self._journal, self._progress = cell, journal, progress
        self.answerer = Answerer(family, pruner, lambda n: None if cell.is_vanilla else tokens_for(cell.budget, n), batch)
        self.answers: dict[str, Answer] = {}

    def __str__(self) -> str:
        return f"vtpbench {self._cell.id}"

    def clean(self) -> None:
        """Keep the model; the base class would delete it."""

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Answer all questions of the cell."""
        questions = [self._question(request) for request in requests]
        known = self._journal.known()
        self.answers = {q.sample: known[q.sample] for q in questions if q.sample in known}
        self._progress(len(self.answers), len(questions))
        for answers in self.answerer.answer([q for q in questions if q.sample not in known]):
            self._journal.add(answers)
            self.answers.update((a.sample, a) for a in answers)
            self._progress(len(self.answers), len(questions))
        return [self.answers[q.sample].text for q in questions]

    def _question(self, request: Any) -> Question:
        context, asked, doc_to_visual, doc_id, task, split = request.args
        generation = {**asked, **self._cell.benchmark.generation}
        return Question(
            sample=str(doc_id),
            name=f"{task}:{doc_id}",
            text=context,
            images=lambda: doc_to_visual(self.task_dict[task][split][doc_id]),
            max_new_tokens=int(generation["max_new_tokens"]),
            until=tuple(u for u in generation.get("until", ()) if u),
        )

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        """Refuse: a prompt whose tokens leave on the way has no logits to score."""
        raise NotImplementedError("vtpbench answers generate_until tasks only")

    def generate_until_multi_round(self, requests: list[Any]) -> list[Any]:
        """Refuse, as above."""
        raise NotImplementedError("vtpbench answers generate_until tasks only")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the progress bars, tables and log lines of libraries away from the terminal."""
    import datasets
    import transformers

    logger.remove()
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _options(cell: Cell) -> dict[str, Any]:
    """Options of the cell's pruner, the seed put back where it takes one."""
    import dataclasses

    from vtpbench.pruners.registry import find

    takes_seed = "seed" in {f.name for f in dataclasses.fields(find(cell.pruner.name).load())}
    return {**cell.pruner.options, **({"seed": cell.seed} if takes_seed else {})}


def _outcome(
    cell: Cell, pruner: Pruner, shape: ModelShape, results: dict[str, Any], samples: list[dict[str, Any]], adapter: _Adapter
) -> Outcome:
    metrics = {k.removesuffix(",none"): float(v) for k, v in results.items() if k.endswith(",none") and _is_number(v)}
    terms = [term.strip() for term in cell.benchmark.metric.split("+")]
    answers = list(adapter.answers.values())
    rows = [_sample(sample, terms, adapter.answers[str(sample["doc_id"])]) for sample in samples]
    problem = _audit(cell, pruner, shape, answers)
    return Outcome(
        status="failed" if problem else "ok",
        reason=problem,
        score=cell.benchmark.scale * sum(metrics[t] for t in terms),
        stderr=_stderr(cell, [row.score for row in rows], sum(metrics[t] for t in terms)),
        metrics={k: v for k, v in metrics.items() if "stderr" not in k},
        n=len(samples),
        observed=_observed(answers, shape.decoder_layers),
        generate_s=adapter.answerer.seconds,
        batch=BatchInfo(requested=cell.batch_size, smallest=adapter.answerer.smallest),
        samples=rows,
    )


def _sample(sample: dict[str, Any], terms: list[str], answer: Answer) -> Sample:
    per_image = [_mean(counts) for counts in answer.per_layer]
    own = {k: v for k, v in sample.items() if k in terms}
    first = next(iter(own.values()), None)
    score = first.get("score") if isinstance(first, dict) else first
    doc = sample.get("doc") or {}
    return Sample(
        sample=answer.sample,
        image=answer.images[0] if answer.images else "",
        category=str(doc.get("category", "")),
        prompt=str(sample["arguments"][0] if isinstance(sample["arguments"], (list, tuple)) else sample["arguments"]),
        answer=answer.text,
        target=str(sample["target"]),
        score=float(score) if _is_number(score) else None,
        tokens=_mean(per_image),
        detail=json.dumps(own, default=str, ensure_ascii=False),
    )


def _observed(answers: list[Answer], layers: int) -> Observed:
    counts = [c for answer in answers for c in answer.per_layer]
    originals = [n for answer in answers for n in answer.original]
    per_layer = [_mean([c[layer] for c in counts]) for layer in range(layers)] if counts else [0.0] * layers
    return Observed(tokens=_mean(per_layer), original=_mean(originals), per_layer=per_layer, images=len(counts))


def _audit(cell: Cell, pruner: Pruner, shape: ModelShape, answers: list[Answer]) -> str | None:
    """Compare the counts of the forward passes with what was asked for."""
    for answer in answers:
        for original, counts in zip(answer.original, answer.per_layer, strict=True):
            budget = original if cell.is_vanilla else tokens_for(cell.budget, original)
            expected = pruner.expected_average(budget, original, shape)
            excess = _mean(counts) - expected
            off = max(excess, 0.0) if pruner.adaptive else abs(excess)
            if off > max(TOLERANCE_TOKENS, TOLERANCE_SHARE * expected):
                seen = f"{_mean(counts):.2f} vision tokens entered a layer on average, {expected:.2f} were due"
                return f"sample {answer.sample}: {seen} (image of {original} tokens, per layer {list(counts)})"
    return None


def _stderr(cell: Cell, scores: list[float | None], mean: float) -> float | None:
    """Standard error of the score where it is the mean of the per-sample scores, else None."""
    numbers = [s for s in scores if s is not None]
    if len(numbers) < max(2, len(scores)) or abs(_mean(numbers) - mean) > 1e-6:
        return None
    variance = sum((s - mean) ** 2 for s in numbers) / (len(numbers) - 1)
    return cell.benchmark.scale * math.sqrt(variance / len(numbers))


def _mean(values: Any) -> float:
    numbers = list(values)
    return float(sum(numbers) / len(numbers)) if numbers else 0.0


def _is_number(value: object) -> bool:
    try:
        return not isinstance(value, (str, list, dict)) and math.isfinite(float(value))  # type: ignore[arg-type] # numpy scalars too
    except (TypeError, ValueError):
        return False
