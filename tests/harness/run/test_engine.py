import json
import re
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from vtpbench.harness.gather.sources import gather
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.records.cell import Answer
from vtpbench.harness.records.journal import FileJournal
from vtpbench.harness.records.record import BudgetInfo
from vtpbench.harness.run.engine import Engine, open_engine
from vtpbench.harness.run.job import Job, RunOptions, execute, make_job
from vtpbench.harness.run.pictures import PictureFolder
from vtpbench.harness.run.progress import Progress
from vtpbench.harness.run.scoring import Evaluated, scored
from vtpbench.pruners.errors import Infeasible, UserError
from vtpbench.pruners.registry import build as build_pruner
from vtpbench.report.formats.render import render
from vtpbench.report.stats.build import build

LIMIT = 20
VANILLA = build_pruner("vanilla", {})


class Memory:
    """A journal that forgets at the end of the test."""

    def __init__(self, answers=()):
        self.answers = {a.sample: a for a in answers}
        self.batches = []

    def known(self) -> dict[str, Answer]:
        return dict(self.answers)

    def add(self, answers: list[Answer]) -> None:
        self.batches.append(len(answers))
        self.answers.update((a.sample, a) for a in answers)


@pytest.fixture(scope="module")
def job(tiny_checkpoint, tmp_path_factory) -> Job:
    models = f"models=[{{label: tiny, path: {tiny_checkpoint}, dtype: float32}}]"
    matrix = "matrix={pruners: [random, {fastv: {layer: 1}}], budgets: [6], benchmarks: [demo-exist, demo-open]}"
    return make_job("demo", RunOptions(tmp_path_factory.mktemp("results"), (), [models, matrix], LIMIT, 4), print)


@pytest.fixture(scope="module")
def engine(job) -> Engine:
    return open_engine(job.models["tiny"], torch.device("cpu"), 4)


def cell_of(job: Job, pruner: str, benchmark: str = "demo-exist"):
    (cell,) = [c for c in job.cells if c.pruner.name == pruner and c.benchmark.label == benchmark]
    return cell


def run(engine: Engine, job: Job, cell, journal=None):
    seen = []
    benchmark = job.suite.benchmarks[cell.benchmark.label]
    return engine.run(cell, benchmark, journal or Memory(), lambda done, of: seen.append((done, of))), seen


@pytest.mark.parametrize("pruner", ["vanilla", "random", "fastv"])
def test_answers_are_the_same_in_batches_of_1_4_and_16(job, engine, pruner) -> None:
    texts = []
    for size in (1, 4, 16):
        outcome, _ = run(Engine(engine.family, size), job, cell_of(job, pruner))
        texts.append([(s.sample, s.answer) for s in outcome.samples])
        assert outcome.status == "ok", outcome.reason
    assert texts[0] == texts[1] == texts[2]


def test_observed_counts_come_from_the_forward_pass(job, engine) -> None:
    vanilla, _ = run(engine, job, cell_of(job, "vanilla"))
    fastv, _ = run(engine, job, cell_of(job, "fastv"))
    assert vanilla.observed.per_layer == [16.0] * 6
    assert fastv.observed.per_layer == [16.0] + [4.0] * 5
    assert fastv.observed.tokens == 6.0
    assert fastv.observed.original == 16.0
    assert fastv.observed.images == LIMIT


def test_tokens_of_an_answer_are_counted_in_whichever_attempt_it_was_given(job, engine) -> None:
    journal = Memory()
    whole, _ = run(engine, job, cell_of(job, "fastv"), journal)
    written = [answer.written for answer in journal.answers.values()]
    assert whole.observed.answer_tokens == sum(written) / LIMIT
    limit = cell_of(job, "fastv").benchmark.generation["max_new_tokens"]
    assert all(1 <= a.written <= limit if a.ended else a.written == limit for a in journal.answers.values())
    again, _ = run(engine, job, cell_of(job, "fastv"), Memory(list(journal.answers.values())[:7]))
    assert again.observed == whole.observed


def test_what_the_vision_tower_cannot_do_shows_before_a_task_is_loaded(job, engine) -> None:
    cell, fresh = cell_of(job, "random"), Engine(engine.family, 4)
    tome = cell.pruner.model_copy(update={"name": "tome", "label": "tome", "options": {}})
    with pytest.raises(Infeasible, match="tome cannot merge 16 tokens into 1 in 3 layers"):
        run(fresh, job, replace(cell, pruner=tome, budget=BudgetInfo(tokens=1)))
    assert not fresh._tasks._known


def test_progress_counts_every_question_and_the_journal_gets_every_batch(job, engine) -> None:
    journal = Memory()
    _, seen = run(engine, job, cell_of(job, "random"), journal)
    assert seen[0] == (0, LIMIT)
    assert seen[-1] == (LIMIT, LIMIT)
    assert journal.batches == [4] * 5


def test_known_answers_are_not_asked_again(job, engine) -> None:
    first = Memory()
    whole, _ = run(engine, job, cell_of(job, "random"), first)
    kept = list(first.answers.values())[:13]
    second = Memory(kept)
    again, seen = run(engine, job, cell_of(job, "random"), second)
    assert seen[0] == (13, LIMIT)
    assert sum(second.batches) == LIMIT - 13
    assert again.samples == whole.samples
    assert again.score == whole.score


def test_pictured_samples_lie_apart_survive_a_resumed_run_and_change_nothing_else(job, engine, tmp_path) -> None:
    cell, benchmark = cell_of(job, "fastv"), job.suite.benchmarks["demo-exist"]
    plain, _ = run(engine, job, cell)
    whole = engine.run(cell, benchmark, FileJournal(tmp_path / "one.jsonl"), lambda done, of: None, PictureFolder(tmp_path, 4))
    kept = {s.sample: json.loads(s.kept) for s in whole.samples if s.kept}
    assert list(kept) == ["0", "5", "10", "15"]
    for (image,) in kept.values():
        ((layer, tokens),) = image["cuts"]
        assert (layer, len(tokens), image["tokens"]) == (1, 4, 16)
    assert replace(whole, samples=[replace(s, kept="") for s in whole.samples], generate_s=0) == replace(plain, generate_s=0)

    torn = FileJournal(tmp_path / "two.jsonl")
    torn.add(list(FileJournal(tmp_path / "one.jsonl").known().values())[:13])
    again = engine.run(cell, benchmark, torn, lambda done, of: None, PictureFolder(tmp_path, 4))
    assert again.samples == whole.samples


def test_how_many_samples_are_pictured_is_no_part_of_a_cells_identity(tiny_checkpoint, tmp_path) -> None:
    def ids(pictures: int) -> list[str]:
        model = f"models=[{{label: tiny, path: {tiny_checkpoint}, dtype: float32}}]"
        settings = [model, "matrix.pruners=[random]", "matrix.budgets=[6]", f"pictures={pictures}"]
        return [cell.id for cell in make_job("demo", RunOptions(tmp_path, (), settings, LIMIT, 4), print).cells]

    assert ids(0) == ids(9)


def scripted(engine: Engine, says: str) -> Engine:
    """Look, and then always say the same."""

    class Scripted(Pipeline):
        def generate(self, batch, max_new_tokens):
            texts, trace = super().generate(batch, 1)
            return [says] * len(texts), trace

    class ScriptedEngine(Engine):
        def pipeline(self, pruner, budget):
            return Scripted(self.family, pruner, budget)

    return ScriptedEngine(engine.family, 16)


def test_always_yes_has_the_f1_of_always_yes(job, engine) -> None:
    outcome, _ = run(scripted(engine, "Yes."), job, cell_of(job, "vanilla"))
    truth = [s.target for s in outcome.samples].count("yes") / LIMIT
    assert outcome.metrics["vtp_recall"] == 1.0
    assert outcome.metrics["vtp_precision"] == pytest.approx(truth)
    assert outcome.metrics["vtp_yes_ratio"] == 1.0
    assert outcome.score == pytest.approx(100 * 2 * truth / (truth + 1))
    assert outcome.stderr is None  # F1 is no mean of the samples' scores
    assert [s.score for s in outcome.samples] == [float(s.target == "yes") for s in outcome.samples]


def test_a_mean_has_its_standard_error(job, engine) -> None:
    cell = cell_of(job, "vanilla", "demo-open")
    blank, _ = run(scripted(engine, ""), job, cell)
    word = blank.samples[0].target
    outcome, _ = run(scripted(engine, word), job, cell)
    share = sum(s.target == word for s in outcome.samples) / LIMIT
    assert 0 < share < 1
    assert outcome.score == pytest.approx(100 * share)
    assert outcome.stderr == pytest.approx(100 * (share * (1 - share) / (LIMIT - 1)) ** 0.5)


def test_samples_carry_what_a_paired_test_needs(job, engine) -> None:
    a, _ = run(engine, job, cell_of(job, "vanilla"))
    b, _ = run(engine, job, cell_of(job, "random"))
    assert [(s.sample, s.image, s.prompt, s.target) for s in a.samples] == [
        (s.sample, s.image, s.prompt, s.target) for s in b.samples
    ]
    assert len({s.image for s in a.samples}) < LIMIT, "questions on one image share its name"
    assert all(s.category in {"random", "popular", "adversarial"} for s in a.samples)
    assert json.loads(a.samples[0].detail)["vtp_f1"]["ground_truth"] == a.samples[0].target
    assert {s.tokens for s in b.samples} == {6.0}


DISHONEST = """
from dataclasses import dataclass
from vtpbench.pruners.base import Cut, Pruner

@dataclass(frozen=True)
class Half(Pruner):
    def cuts(self, budget, n, shape):
        return (Cut(0, budget // 2),)

    def score(self, view):
        return view.features.norm(dim=-1)
"""


def test_a_cell_that_misses_its_budget_fails_and_has_no_score(job, engine, tmp_path) -> None:
    (tmp_path / "dishonest.py").write_text(DISHONEST)
    cell = cell_of(job, "random", "demo-open")
    pruner = cell.pruner.model_copy(update={"name": f"{tmp_path}/dishonest.py:Half", "options": {}})
    outcome, _ = run(engine, job, replace(cell, pruner=pruner))
    assert outcome.status == "failed"
    assert "3.00 vision tokens entered a layer on average, 6.00 were due" in str(outcome.reason)
    assert (outcome.score, outcome.stderr) == (None, None)
    assert outcome.observed.tokens == 3.0


def test_a_cell_that_misses_its_budget_is_failed_in_the_table(tiny_checkpoint, tmp_path) -> None:
    (tmp_path / "dishonest.py").write_text(DISHONEST)
    models = f"models=[{{label: tiny, path: {tiny_checkpoint}, dtype: float32}}]"
    matrix = f"matrix={{pruners: [random, {tmp_path}/dishonest.py:Half], budgets: [6], benchmarks: [demo-exist]}}"
    made = make_job("demo", RunOptions(tmp_path / "results", (), [models, matrix], 4, 4), print)
    assert execute(made, "cpu", Progress(Console(quiet=True))).exit_code == 1
    records = gather([str(tmp_path / "results")], tmp_path, print).records
    text = render(build(records), "markdown")
    assert re.search(r"\| Half +\| +- \| +failed² \| +- \| +0 of 1 \|", text), text
    assert "² failed: sample 0: 3.00 vision tokens" in text


def test_a_cell_of_a_model_that_overflows_fails_and_its_answers_are_asked_again(job, tiny_checkpoint) -> None:
    broken = open_engine(job.models["tiny"], torch.device("cpu"), 4)
    norm = broken.family.decoder.norm.weight
    whole = norm.detach().clone()
    journal = Memory()
    with torch.no_grad():
        norm.fill_(torch.inf)
    with pytest.raises(UserError, match=f"{LIMIT} of {LIMIT} answers .*not finite: the model runs in float32"):
        run(broken, job, cell_of(job, "random"), journal)
    with torch.no_grad():
        norm.copy_(whole)
    healed, seen = run(broken, job, cell_of(job, "random"), journal)
    assert (healed.status, seen[0]) == ("ok", (0, LIMIT))


@pytest.mark.parametrize("value", [float("nan"), None])
def test_a_metric_without_a_number_is_named(job, engine, value) -> None:
    cell = cell_of(job, "vanilla", "demo-open")
    evaluated = Evaluated({f"{cell.benchmark.metric},none": value}, [], {})
    with pytest.raises(UserError, match=f"task {cell.benchmark.task} gives {cell.benchmark.metric} = {value}, no finite number"):
        scored(cell.benchmark, evaluated)


def test_one_of_several_processes_is_refused_before_a_model_is_opened(job, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="unset WORLD_SIZE"):
        execute(job, "cpu", Progress(Console()))
