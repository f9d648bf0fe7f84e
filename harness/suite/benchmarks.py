"""Benchmarks: which lmms-eval task, which of its metrics, on which data; and what identifies them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, ValidationInfo, field_validator, model_validator

from vtpbench.harness.host.files import locate, read_text
from vtpbench.harness.records.record import BenchmarkInfo, DrawInfo, OnBadQuestion, split_terms
from vtpbench.harness.suite.generation import asked_by, greedy
from vtpbench.harness.suite.strict_yaml import LARGEST, Document, Strict, reject
from vtpbench.harness.suite.task_data import fingerprint, must_download, require_data, require_unchanged, task_config
from vtpbench.harness.suite.task_file import check_definition, find_task, read_task
from vtpbench.harness.suite.task_metrics import choose_score
from vtpbench.harness.suite.task_support import refuse_unsupported
from vtpbench.pruners.errors import did_you_mean

__all__ = [
    "Benchmark",
    "Profile",
    "describe",
    "fingerprint",
    "must_download",
    "registry",
    "require_data",
    "require_unchanged",
    "task_config",
]

Profile = Literal["lmms-eval", "paper"]
"""Whose choices a benchmark follows: those of the installed lmms-eval, or those of the OC-VTP paper's engine."""


REGISTERED = ("benchmarks.yaml", "benchmarks_more.yaml")
"""Files beside this one with the benchmarks that a suite can name by their label."""


class Changes(Strict):
    """What a profile changes of a benchmark."""

    overrides: dict[str, Any] = Field(default_factory=dict)
    metric: str | None = None
    unit: str | None = None
    why: str
    """Where the choice is taken from."""


class Benchmark(Strict):
    """One column of a table.

    In YAML: the label of a known benchmark; that label with changes (`pope: {label: POPE, overrides: {...}}`); or a
    definition of one's own with `label`, `task` and `metric`. Relative paths start at the YAML file's folder.
    What is written there wins over what a profile would change.
    """

    label: str = Field(min_length=1)
    task: str = Field(pattern=r"^[\w.-]+$")
    """lmms-eval task."""
    folder: Path | None = None
    """Folder with the task's YAML and `utils.py`; None = lmms-eval's own tasks."""
    metric: str
    """Metric of the score in lmms-eval's results, `metric,filter` where its task has several filters, or a sum `a + b`."""
    scale: float = Field(default=1.0, gt=0, le=1e9)
    """Factor from the metric to the reported score."""
    unit: str = ""
    """What the reported number is, for a table's footer."""
    profile: Profile | None = None
    """None = the suite's."""
    profiles: dict[Profile, Changes] = Field(default_factory=dict)
    """What the profiles change; one that is not here changes nothing."""
    overrides: dict[str, JsonValue] = Field(default_factory=dict)
    """Keys of the task's YAML to replace, whole values each, such as `dataset_path` for a local copy of the data.

    Those of a known benchmark stay in force beside a suite's own, unless it names the same key.
    """
    drop: tuple[str, ...] = Field(default=("submission",), strict=False)
    """Metrics not to compute: those that write files for an evaluation server."""
    judged: bool | None = None
    """Whether a language model is asked for scores; None = if the task's code could."""
    limit: int | None = Field(default=None, ge=1, le=LARGEST)
    """Questions to ask; None = as many as the suite says."""
    limit_seed: int | None = Field(default=None, ge=0, le=LARGEST)
    """Draw the questions of a limit with this seed instead of taking the first ones; None = as the suite says."""
    on_bad_question: OnBadQuestion | None = None
    """Whether a question that cannot be asked fails its cells or is left out of all of them; None = as the suite says."""
    together: str = ""
    """Column of the questions whose equal values a draw keeps together; empty = the content of the first picture."""
    category: str = "category"
    """Column that names the ability a question is about, dots for a field within it; without such a column, none."""
    nltk: tuple[str, ...] = Field(default=(), strict=False)
    """Data of NLTK that the task's code reads, as NLTK names them: `corpora/wordnet`."""
    tables: tuple[str, ...] = Field(default=(), strict=False)
    """Further configurations of the dataset that the task's code loads by itself."""
    needs: tuple[str, ...] = Field(default=(), strict=False)
    """What a model must be able to read beyond one image: `several images`, `video frames`."""
    n: int | None = None
    """Published number of questions."""
    pictures: int | None = None
    """Published number of pictures that they are about; None = not known."""
    split: str = ""
    """Split that is asked, for listings: in force is what the task says."""
    per_sample: str = ""
    """Score of one question, for listings."""
    card: str = ""
    """What is asked, where it comes from, and what to know when reading the number."""

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any, info: ValidationInfo) -> Any:
        """Turn the short forms into the long one."""
        if isinstance(data, Benchmark):
            return data.model_dump()
        if isinstance(data, str):
            return _known(data).model_dump()
        if isinstance(data, Mapping) and len(data) == 1 and isinstance(next(iter(data.values())), Mapping):
            name, changes = next(iter(data.items()))
            for key in changes:
                if key not in cls.model_fields:
                    reject(f"unknown key '{key}'; {did_you_mean(str(key), cls.model_fields)}", name, key)
            known = _without(_known(str(name)), changes).model_dump()
            own = changes.get("overrides")
            merged = {"overrides": {**known["overrides"], **own}} if isinstance(own, Mapping) else {}
            return {**known, **changes, **merged}
        return data

    @field_validator("folder", mode="before")
    @classmethod
    def _resolve_folder(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str):
            return value
        path = locate(value, info.context)
        if not os.path.isdir(path):
            reject(f"no task folder {path}")
        return path

    @field_validator("overrides")
    @classmethod
    def _resolve_overrides(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        resolved = dict(value)
        dataset = str(value.get("dataset_path"))
        if "/" in dataset and os.path.isdir(locate(dataset, info.context)):
            resolved["dataset_path"] = str(locate(dataset, info.context))
        kwargs = value.get("dataset_kwargs")
        if isinstance(kwargs, dict) and "data_files" in kwargs:
            resolved["dataset_kwargs"] = {**kwargs, "data_files": _anchor(kwargs["data_files"], info)}
        return resolved

    @property
    def terms(self) -> tuple[str, ...]:
        """Metric keys whose sum is the score."""
        return tuple(term for term, _ in split_terms(self.metric))

    def asked(self, limit: int | None, limit_seed: int | None) -> tuple[int | None, int | None]:
        """Limit in force and the seed of its draw, None for none, where a suite says these; its own win."""
        limit = limit if self.limit is None else self.limit
        seed = limit_seed if self.limit_seed is None else self.limit_seed
        return limit, None if limit is None else seed

    @property
    def file(self) -> Path:
        """YAML file of the task; its folder is what lmms-eval takes as `include_path`."""
        return find_task(self.task, self.folder)

    def definition(self) -> dict[str, Any]:
        """Task as lmms-eval will see it: its YAML, what that includes, and the overrides."""
        definition = {**read_task(self.file), **self.overrides}
        check_definition(definition, f"benchmark '{self.label}': task '{self.task}'")
        return definition

    @property
    def followed(self) -> Profile | None:
        """Profile whose choices are all in force; None where it has none, or the suite says something else."""
        changes = self.profiles.get(self.profile) if self.profile else None
        if changes is None or not (changes.overrides or changes.metric):
            return None
        wanted = {**changes.overrides, "metric": changes.metric or self.metric}
        found = {**self.overrides, "metric": self.metric}
        return self.profile if all(found.get(key) == value for key, value in wanted.items()) else None

    def under(self, default: Profile) -> Benchmark:
        """Follow the benchmark's own profile, else `default`; own overrides win over those of a profile."""
        profile = self.profile or default
        changes = self.profiles.get(profile)
        if changes is None:
            return self
        overrides = {**changes.overrides, **self.overrides}
        update = {"profile": profile, "metric": changes.metric or self.metric, "unit": changes.unit or self.unit}
        return self.model_copy(update={**update, "overrides": overrides})


def registry() -> dict[str, Benchmark]:
    """Benchmarks that come with vtpbench, by label."""
    return dict(_registry())


@cache
def _registry() -> dict[str, Benchmark]:
    import vtpbench.suites

    class Registry(Strict):
        benchmarks: list[Benchmark]

    context = {"folder": Path(str(vtpbench.suites.__file__)).parent}
    paths = (Path(__file__).with_name(name) for name in REGISTERED)
    found = [Document(read_text(path), path.name).validate(Registry, context).benchmarks for path in paths]
    return {benchmark.label: benchmark for benchmarks in found for benchmark in benchmarks}


def _known(label: str) -> Benchmark:
    if label not in _registry():
        reject(f"unknown benchmark '{label}'; {did_you_mean(label, _registry())}")
    return _registry()[label]


def _without(benchmark: Benchmark, keys: Mapping[str, Any]) -> Benchmark:
    """Take out of the profiles what a suite says itself; `overrides` are merged key by key in `under`."""
    said = {key: None for key in ("metric", "unit") if key in keys}
    profiles = {name: changes.model_copy(update=said) for name, changes in benchmark.profiles.items()}
    return benchmark.model_copy(update={"profiles": profiles})


def decoding(benchmark: Benchmark, generation: Mapping[str, Any], family: str) -> dict[str, Any]:
    """State how a model of a family answers a benchmark; `generation` replaces what the task asks for.

    Raises `UserError` where the task does not decode greedily.
    """
    return {**greedy(asked_by(benchmark.definition()), _named(benchmark), family), **generation}


def describe(
    benchmark: Benchmark,
    limit: int | None,
    generation: Mapping[str, Any],
    limit_seed: int | None = None,
    family: str = "",
    on_bad_question: OnBadQuestion = "fail",
    dataset: Callable[[Benchmark], str] = fingerprint,
) -> BenchmarkInfo:
    """State a benchmark as it will be run.

    Parameters
    ----------
    benchmark : its own limit and seed win over the next
    limit : questions to ask; None = all
    generation : replaces what the task asks for
    limit_seed : draws the questions of a limit; None = the first ones
    family : of the model that answers; one that lmms-eval has no rule of its own for follows LLaVA's
    on_bad_question : what becomes of cells with a question that cannot be asked
    dataset : names what is asked, by the content of the data

    Raises
    ------
    UserError : the task cannot be answered or scored here, has no such metric, does not decode greedily, or its data are out of
        reach

    """
    definition = benchmark.definition()
    name = _named(benchmark)
    refuse_unsupported(benchmark)
    score = choose_score(definition, benchmark.metric, name)
    limit, seed = benchmark.asked(limit, limit_seed)
    return BenchmarkInfo(
        label=benchmark.label,
        task=benchmark.task,
        metric=score.metric,
        scale=benchmark.scale,
        split=str(definition.get("test_split") or definition.get("validation_split")),
        limit=limit,
        dataset=dataset(benchmark),
        generation=decoding(benchmark, generation, family),
        profile=benchmark.followed,
        draw=None if seed is None else DrawInfo(seed=seed, together=benchmark.together),
        higher_is_better=score.higher_is_better,
        on_bad_question=benchmark.on_bad_question or on_bad_question,
    )


def _named(benchmark: Benchmark) -> str:
    return f"benchmark '{benchmark.label}': task '{benchmark.task}'"


def _anchor(value: Any, info: ValidationInfo) -> Any:
    """Make the data files beside the YAML file absolute, in any of the shapes that `datasets` takes."""
    if isinstance(value, dict):
        return {key: _anchor(inner, info) for key, inner in value.items()}
    if isinstance(value, list):
        return [_anchor(inner, info) for inner in value]
    beside = locate(value, info.context) if isinstance(value, str) else None
    return value if beside is None or not os.path.isfile(beside) else str(beside)
