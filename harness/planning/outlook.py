"""`vtpbench plan`: all that can be said of a suite before it is run, on a machine that need not have its models and data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from vtpbench.harness.efficiency.gpu_memory import NUMBER_BYTES
from vtpbench.harness.efficiency.gpus import find_gpu, gpu_table
from vtpbench.harness.host.printable import one_line
from vtpbench.harness.host.text_grid import text_grid
from vtpbench.harness.models.described_sizes import dimensions_of
from vtpbench.harness.planning.cost import ANSWER, CostEstimate, estimate
from vtpbench.harness.planning.inspection import ANYWHERE, NOT_HERE
from vtpbench.harness.planning.page import estimator, render_plan
from vtpbench.harness.planning.questions import QuestionCount, count_questions
from vtpbench.harness.planning.speed import render_speed
from vtpbench.harness.records.store import Store
from vtpbench.harness.run.batch_size import SIZES, TEXT
from vtpbench.harness.run.job import Job, RunOptions, load_suite, make_job
from vtpbench.harness.suite.task_data import MissingData, local_data
from vtpbench.report.stats.smallest import DISCORDANCE, POWER, smallest_difference
from vtpbench.report.tables.rounding import half_up

if TYPE_CHECKING:
    from vtpbench.harness.efficiency.gpus import Gpu
    from vtpbench.harness.records.cell import Cell
    from vtpbench.harness.suite.benchmarks import Benchmark
    from vtpbench.harness.suite.suite import Suite

SIXTEEN_BIT = ("float16", "bfloat16")


def show_plan(
    name: str, choices: RunOptions, warn: Callable[[str], None], gpu: str | None = None, width: int | None = None
) -> str:
    """Print the plan of a suite.

    Parameters
    ----------
    name : of the suite
    choices : what the command line says beside it
    warn : is told what was wrong with a record
    gpu : kind of GPU whose hours are to be estimated
    width : columns of the terminal; None = no limit

    Raises
    ------
    UserError : whatever can be known to be wrong without models and data; a kind of GPU that is not known

    """
    kind = None if gpu is None else find_gpu(gpu)
    suite = load_suite(name, choices)
    if not suite.benchmarks:
        return render_speed(suite, name, width)
    memory = None if kind is None else kind.gb * 1e9
    if suite.batch_size is None and memory is None:
        choices = dataclasses.replace(choices, batch_size=_recorded_batch_size(choices, suite, warn))
    job = make_job(name, choices, warn, dataclasses.replace(ANYWHERE, gpu_bytes=lambda: memory))
    counts = {label: count_questions(job.suite.benchmarks[label], _limit(job, label)) for label in _labels(job.cells)}
    unmeasured = {cell.id for cell in job.store.missing(job.cells)}
    done = {cell.id for cell in job.cells} - unmeasured
    todo = [cell for cell in job.cells if cell.id in unmeasured and not job.forecasts[cell.id].obstacle]
    notes = [_questions(job, counts), _batches(job, suite.batch_size, kind), _not_here(job, name)]
    if kind is not None:
        notes.append(_cost(job, todo, counts, kind))
    return render_plan(job.cells, done, job.forecasts, estimator(job.store.records()), notes, width)


def _recorded_batch_size(choices: RunOptions, suite: Suite, warn: Callable[[str], None]) -> int | None:
    """Find what the newest record of a suite was measured with, whose batch size was fitted to a GPU that is not here."""
    batches = {record.created: record.batch for record in Store(choices.out / suite.name, warn).records() if record.batch}
    return batches[max(batches)].requested if batches else None


def _batches(job: Job, asked: int | None, gpu: Gpu | None) -> list[str]:
    """Say where the batch size comes from that a suite leaves open."""
    size = job.suite.questions_together
    if asked is not None:
        return []
    if gpu is not None:
        reach = f"as many as leave a fifth of its memory, up to {max(SIZES)}"
        return [f"batches on one {gpu.title}: {size} questions, {reach}"]
    where = "as on a processor" if job.suite.batch_size is None else f"as in {one_line(str(job.store.folder))}"
    return [f"batches of {size} questions, {where}; --gpu KIND says what fits a GPU"]


def _labels(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.benchmark.label for cell in cells))


def _limit(job: Job, label: str) -> int | None:
    return next(cell.benchmark.limit for cell in job.cells if cell.benchmark.label == label)


def _questions(job: Job, counts: Mapping[str, QuestionCount]) -> list[str]:
    """Say how many questions each benchmark asks, and what difference between two rows they can show."""
    rows = [["benchmark", "questions", "detects", "data"]]
    for label, count in counts.items():
        number = "unknown" if count.questions is None else f"{count.questions:,}"
        expected = "" if count.here else "not here; the number is the published one"
        rows.append([one_line(label), number, _smallest([count.questions]), "here" if count.here else expected])
    apart = f"one has right and the other wrong {100 * DISCORDANCE:.0f} % of the questions (assumed), all independent"
    seen = f"that is seen in {100 * POWER:.0f} % of cases if {apart}"
    meaning = f"detects: the smallest difference between two rows, in points of 100, {seen}"
    mean = _smallest([count.questions for count in counts.values()])
    return [*text_grid(rows), f"{meaning}; of the mean of all benchmarks {mean}" if len(counts) > 1 else meaning]


def _smallest(questions: Sequence[int | None]) -> str:
    """Print the smallest difference that so many questions can show."""
    known = [n for n in questions if n]
    if len(known) < len(questions):
        return "unknown"
    found = smallest_difference(known)
    return "too few" if found is None else str(half_up(found, 1))


def _not_here(job: Job, name: str) -> list[str]:
    """Say what is missing on this machine, how large it is as far as that is known without asking, and how to bring it."""
    absent = {cell.model.label: cell.model for cell in job.cells if cell.model.weights == NOT_HERE}
    lines = []
    for label, model in absent.items():
        size = dimensions_of(job.models[label]).parameters * NUMBER_BYTES[model.dtype] / 1e9
        lines.append(
            f"model {label}: {model.id}, about {size:.1f} GB in {model.dtype}; planned by its configuration, as if it held the "
            "weights of trained pruners"
        )
    data = {cell.benchmark.label for cell in job.cells if cell.benchmark.dataset == NOT_HERE}
    lines += [f"data of {label}: {_source(job.suite.benchmarks[label])}" for label in _labels(job.cells) if label in data]
    if not lines:
        return []
    return ["not here, so that `run` would fetch or refuse it:", *(f"  {one_line(line)}" for line in lines), _bring(name)]


def _source(benchmark: Benchmark) -> str:
    """Name a dataset that is not here, or the file that is missing."""
    try:
        local_data(benchmark)
    except MissingData as e:
        return str(e)
    return str(benchmark.definition().get("dataset_path"))


def _bring(name: str) -> str:
    return f"`vtpbench data {name}` asks the hub for sizes and says how to bring them"


def _cost(job: Job, todo: Sequence[Cell], counts: Mapping[str, QuestionCount], gpu: Gpu) -> list[str]:
    """Say what the cells that are left will cost on one GPU, and what that rests on."""
    wide = sorted({cell.model.label for cell in todo if cell.model.dtype not in SIXTEEN_BIT})
    narrow = [cell for cell in todo if cell.model.dtype in SIXTEEN_BIT]
    lines = [f"no estimate for {label}: it is run in float32, and rates are known of 16 bits; --dtype bfloat16" for label in wide]
    for label, cost in estimate([*map(ANYWHERE.foreseen, narrow)], job.models, counts, gpu).items():
        lines.append(_of_model(label, cost, gpu))
    if not narrow:
        return lines
    unknown = sorted({cell.benchmark.label for cell in narrow if not counts[cell.benchmark.label].questions})
    lines += [f"not counted, as nobody knows how many questions they ask: {', '.join(map(one_line, unknown))}"] if unknown else []
    return [*lines, *_assumptions(job, narrow, gpu)]


def _of_model(label: str, cost: CostEstimate, gpu: Gpu) -> str:
    """Print the estimate for one model, the dearest benchmarks first."""
    dearest = sorted(cost.seconds.items(), key=lambda item: -item[1])
    parts = ", ".join(f"{one_line(name)} {_hours(seconds)}" for name, seconds in dearest)
    memory = f"{cost.peak_bytes / 1e9:.0f} of {gpu.gb:.0f} GB"
    room = "" if cost.fits else ", which is too much: give a smaller --batch-size or a larger GPU"
    return f"{one_line(label)} on one {gpu.title}: about {_hours(sum(cost.seconds.values()))}, {memory}{room} ({parts})"


def _hours(seconds: float) -> str:
    """Print GPU time to two digits, which is more than it is known to."""
    return f"{seconds / 3600:.2g} h" if seconds < 36_000 else f"{seconds / 3600:.0f} h"


def _assumptions(job: Job, cells: Sequence[Cell], gpu: Gpu) -> list[str]:
    """Say what an estimate rests on."""
    measured = gpu_table().measured
    sizes = ", ".join(map(str, sorted({cell.batch_size for cell in cells})))
    supposed = {job.models[cell.model.label].shape.example.n for cell in cells if not cell.model.vision_tokens}
    images = f", pictures of {' or '.join(map(str, sorted(supposed)))} tokens" if supposed else ""
    source = find_gpu(measured.gpu).title
    scaled = f", scaled by the data sheets' peak and bandwidth: no {gpu.title} was measured" if gpu.name != measured.gpu else ""
    graphs = "; decoding steps and small prefills as CUDA graphs" if all(cell.graphs for cell in cells) else ""
    return [
        f"assumed: batches of {sizes}, {TEXT} text tokens, answers of {ANSWER} tokens{images}{graphs}; "
        "not counted: what pruners compute, loading, scoring",
        f"by what an {source} with a slow host reached{scaled}; take it for right within a factor of two",
    ]
