"""The official tasks of lmms-eval in the real engine, their data made here, their answers from a script."""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vtpbench.harness.models.family import Family
from vtpbench.harness.pruning.batch import ImageGroup, VisionTokens
from vtpbench.harness.pruning.decoder_hooks import ForwardTrace
from vtpbench.harness.pruning.layout import PromptLayout
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.records.cell import Answer, Cell
from vtpbench.harness.records.outcome import Outcome
from vtpbench.harness.records.record import BudgetInfo, ModelInfo, PrunerInfo
from vtpbench.harness.run.engine import Engine
from vtpbench.harness.run.sample_scores import sample_score
from vtpbench.harness.suite.benchmarks import Benchmark, describe
from vtpbench.harness.verify.aggregates import total_of
from vtpbench.harness.verify.scores import sample_faults
from vtpbench.pruners.base import Grid, ModelShape

LAYERS = 2
GRID = Grid(1, 2, 2)


@dataclass(frozen=True)
class Asked:
    """What a family's own batch stands for here: the texts, and the images in the order in which they were shown."""

    questions: Sequence[str]
    images: tuple[Any, ...]

    @property
    def layout(self) -> PromptLayout:
        """Prompts without a token, so that each fits into any model."""
        return PromptLayout(((),) * len(self.questions))


class ScriptedFamily(Family):
    """Sees every picture as four tokens, and answers each prompt as the script says; an unknown prompt is an error.

    A prompt that is asked more than once has its answers in the order of its questions.
    """

    shape = ModelShape("toy", LAYERS, 1, 8, 2, 2, 0, has_cls=False, full_attention=())
    preprocessings = ("none",)

    def __init__(self, prompts: Sequence[str] = (), answers: Sequence[str] = ()) -> None:
        self.model = SimpleNamespace(dtype=torch.float32, device=torch.device("cpu"))
        self.script: dict[str, list[str]] = {}
        for prompt, answer in zip(prompts, answers, strict=True):
            self.script.setdefault(prompt, []).append(answer)
        self.longest: set[int] = set()

    @staticmethod
    def model_class():
        raise NotImplementedError("there is no model")

    def group(self, images):
        return [ImageGroup(tuple(range(len(images))), GRID, GRID.n)]

    def encode(self, group, schedule):
        index = torch.arange(GRID.n).expand(len(group.members), -1)
        return VisionTokens(group.members, torch.zeros(*index.shape, 2), index, None, GRID, {}, GRID.n, schedule, ())

    @property
    def decoder(self):
        raise NotImplementedError("there is no model")

    @property
    def vision_tower(self):
        raise NotImplementedError("there is no model")

    def group_pixels(self, pixels, sizes, counts):
        raise NotImplementedError("there is no model")

    def pixels(self, group):
        raise NotImplementedError("there is no model")

    @classmethod
    def describe(cls, config, preprocessing):
        raise NotImplementedError("there is no model")

    @classmethod
    def load(cls, path, dtype, device, attention, preprocessing):
        raise NotImplementedError("there is no model")

    def project(self, features):
        raise NotImplementedError("there is no model")


class ScriptedPipeline(Pipeline):
    """Takes the answers from the script of its family."""

    def assemble(self, questions, images, prompt_ids=None):
        return Asked(questions, tuple(image for row in images for image in row))

    def generate(self, batch, max_new_tokens):
        self.model.longest.add(max_new_tokens)
        counts = {n: [len(image.index)] * LAYERS for n, image in enumerate(batch.images)}
        texts, n = [self.model.script[question].pop(0) for question in batch.questions], len(batch.questions)
        return texts, ForwardTrace(counts, finite=[True] * n, ended=[True] * n, written=[1] * n)


class ScriptedEngine(Engine):
    """Runs the official tasks with a scripted model."""

    def pipeline(self, pruner, budget):
        return ScriptedPipeline(self.family, pruner, budget)


@dataclass
class Memory:
    """A journal that forgets at the end of the test."""

    answers: dict[str, Answer] = field(default_factory=dict)

    def known(self) -> dict[str, Answer]:
        return {}

    def add(self, answers: list[Answer]) -> None:
        self.answers.update((a.sample, a) for a in answers)


@dataclass(frozen=True)
class Played:
    """A cell as it came out, and what was seen on the way."""

    outcome: Outcome
    cell: Cell
    longest: set[int]
    """Longest answers that were allowed."""
    pictures: list[int]
    """Pictures that each question showed, in the order of the rows."""

    @property
    def scores(self) -> list[float | None]:
        """Scores of the rows, in their order."""
        rows = [(sample.score, json.loads(sample.detail)) for sample in self.outcome.samples]
        return [score if score is not None else alone(detail) for score, detail in rows]


def alone(detail: Mapping[str, Any]) -> float | None:
    """Score of a sample from the task's own result."""
    return next((sample_score(metric, item) for metric, item in detail.items()), None)


Play = Callable[..., Played]


@pytest.fixture(scope="session")
def official() -> SimpleNamespace:
    """Give the rows and prompts of `official_data.py`."""
    return SimpleNamespace(**run_path(str(Path(__file__).with_name("official_data.py"))))


@pytest.fixture(scope="session")
def played(official: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Play:
    """Give a function that answers a benchmark's rows, in their order, by the official task; tasks are loaded once."""
    folder = tmp_path_factory.mktemp("official")
    engines: dict[str, Engine] = {}
    known: dict[str, Benchmark] = {}

    def run(
        label: str, answers: Sequence[str], *, prompts: Sequence[str] = (), profile: str = "lmms-eval", **changes: Any
    ) -> Played:
        name = f"{label} {profile} {changes}"
        is_new = name not in known
        if is_new:
            local = {} if "overrides" in changes else {"overrides": official.write(label, folder)}
            known[name] = Benchmark.model_validate({label: {**local, **changes}}).under(profile)
            engines[name] = ScriptedEngine(ScriptedFamily(), batch_size=3)
        prompts = prompts or official.PROMPTS[label]
        benchmark, engine, journal = known[name], engines[name], Memory()
        engine.family = ScriptedFamily(prompts, answers)
        cell = cell_of(benchmark)
        outcome = engine.run(cell, benchmark, journal, lambda done, of: None)
        samples = sorted(outcome.samples, key=lambda sample: int(sample.sample))
        assert [sample.prompt for sample in samples] == list(prompts)
        assert [sample.answer for sample in samples] == list(answers)
        pictures = [len(journal.answers[sample.sample].images) for sample in samples]
        if is_new and outcome.score is not None:
            total = total_of(benchmark, cell.benchmark, [json.loads(sample.detail) for sample in outcome.samples])
            assert total is not None, "vtpbench verify could not score it without its data"
            assert not list(sample_faults(cell.benchmark, outcome.samples))
            assert cell.benchmark.scale * total == pytest.approx(outcome.score, rel=1e-9)
        return Played(dataclasses.replace(outcome, samples=samples), cell, engine.family.longest, pictures)

    return run


@pytest.fixture
def play(played: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Play]:
    """Give the same in an empty working folder, without network; a task that asks for a judge or the hub is noticed."""
    asked = []
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_UNIX:  # processes of this machine
            return connect(self, address)
        asked.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)
    yield played
    assert not asked


def cell_of(benchmark: Benchmark) -> Cell:
    """Make the denominator's cell of a model that does not exist."""
    model = {"label": "toy", "id": "toy", "family": "toy", "weights": "0", "dtype": "float32", "attention": "sdpa"}
    return Cell(
        model=ModelInfo(**model, preprocessing="none", prompt="0", vision_tokens=None),
        pruner=PrunerInfo(name="vanilla", label="vanilla", options={}, code="0", distribution="vtpbench"),
        budget=BudgetInfo(),
        benchmark=describe(benchmark, None, {}),
        seed=0,
        batch_size=3,
        versions={},
    )
