"""The suite: a YAML file that says which models, pruners, budgets and benchmarks make up a table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from vtpbench.harness.host.files import read_text
from vtpbench.harness.records.names import SuiteName
from vtpbench.harness.records.record import BudgetInfo, Dtype, OnBadQuestion
from vtpbench.harness.suite.benchmarks import Benchmark, Profile
from vtpbench.harness.suite.specs import RANDOM, VANILLA, Attention, Budget, ModelSpec, PrunerSpec
from vtpbench.harness.suite.strict_yaml import LARGEST, Document, Key, Strict, filled_list, reject
from vtpbench.pruners.errors import UserError, did_you_mean

__all__ = ["Generation", "Matrix", "ModelSpec", "PrunerSpec", "Suite", "find_file", "load", "packaged_suites"]

Seed = Annotated[int, Field(ge=0, le=LARGEST)]
AUTOMATIC = (VANILLA.name, RANDOM.name)
"""Pruners that are measured unasked; see `vtpbench.harness.run.plan`."""
BATCH_SIZE_OF_A_PROCESSOR = 8
"""Larger ones are hardly faster there."""


class Matrix(Strict):
    """Every model x pruner x budget x benchmark x seed of these lists; the unpruned model is always added."""

    models: tuple[str, ...] | None = Field(default=None, strict=False)
    """Labels of the models that take part; None = all."""
    pruners: tuple[PrunerSpec, ...] = Field(strict=False)
    budgets: tuple[Budget, ...] = Field(default=(), strict=False)
    benchmarks: tuple[Benchmark, ...] = Field(default=(), strict=False)
    """None where a suite is for `vtpbench profile` alone."""
    seeds: tuple[Seed, ...] = Field(default=(0,), strict=False)
    """Multiply pruners that draw at random, only them."""

    _lists = field_validator("models", "pruners", "budgets", "benchmarks", "seeds", mode="before")(filled_list)

    @field_validator("models", "pruners", "budgets", "benchmarks", "seeds")
    @classmethod
    def _must_differ(cls, value: Any) -> Any:
        _refuse_twins(value or ())
        return value

    @field_validator("pruners")
    @classmethod
    def _labels_of_automatic_rows(cls, value: tuple[PrunerSpec, ...]) -> tuple[PrunerSpec, ...]:
        for i, pruner in enumerate(value):
            if pruner.label in AUTOMATIC and pruner.name != pruner.label:
                reject(f"'{pruner.label}' is a row that comes by itself; give '{pruner.name}' another label", i, "label")
        return value

    def without_own_limits(self) -> Matrix:
        """Let no benchmark have a limit of its own."""
        benchmarks = (each.model_copy(update={"limit": None}) for each in self.benchmarks)
        return self.model_copy(update={"benchmarks": tuple(benchmarks)})

    @model_validator(mode="after")
    def _budgets_for_pruners(self) -> Matrix:
        if not self.budgets and any(pruner.name != "vanilla" for pruner in self.pruners):
            reject("budgets are missing: give counts of vision tokens or percentages, e.g. budgets: [48, 11.1%]", "budgets")
        return self


class Generation(Strict):
    """Decoding, always greedy; a value replaces what every task asks for."""

    max_new_tokens: int | None = Field(default=None, ge=1, le=LARGEST)
    until: tuple[str, ...] | None = Field(default=None, strict=False)
    """Texts that end an answer."""


class Suite(Strict):
    """A checked suite; see docs/suites.md."""

    name: SuiteName
    """Folder of the results; the file's name unless given."""
    dtype: Dtype | None = None
    """Of the models that name none themselves; None = of each the one that its checkpoint names."""
    attention: Attention = "sdpa"
    limit: int | None = Field(default=None, ge=1, le=LARGEST)
    """Questions of each benchmark that has no limit of its own: the first ones; None = all."""
    limit_seed: Seed | None = None
    """Draw the questions of a limit with this seed instead of taking the first ones, those on one picture together."""
    profile: Profile = "lmms-eval"
    """Whose choices the benchmarks follow that name none themselves; see docs/benchmarks.md."""
    on_bad_question: OnBadQuestion = "fail"
    """What becomes of a cell with a question that cannot be asked: it fails, or the question is left out of all rows."""
    batch_size: Annotated[int, Field(ge=1, le=LARGEST)] | None = None
    """Questions that are answered together; None, `auto` in the file = as many as the GPU's memory holds."""
    share_prefix: bool = True
    """Ask questions about a picture behind one prefill of it, where nothing leaves inside the language model."""
    graphs: bool = True
    """Replay decoding steps as CUDA graphs, where the device is a GPU."""
    pictures: int = Field(default=4, ge=0, le=LARGEST)
    """Questions of each benchmark for which the report can show the tokens that stay; changes no answer and no cell."""
    generation: Generation = Generation()
    models: tuple[ModelSpec, ...] = Field(strict=False)
    matrix: tuple[Matrix, ...] = Field(strict=False)
    _document: Document | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any, info: ValidationInfo) -> Any:
        """Leave out `x-` keys (a place for anchors), name the suite after its file, and make one matrix a list."""
        data = {key: value for key, value in data.items() if not str(key).startswith("x-")}
        data.setdefault("name", (info.context or {}).get("name"))
        if isinstance(data.get("matrix"), str):
            reject("expected the lists `pruners`, `budgets` and `benchmarks` below `matrix:`, not a text", "matrix")
        if isinstance(data.get("matrix"), Mapping):
            data["matrix"] = [data["matrix"]]
        return data

    _lists = field_validator("models", "matrix", mode="before")(filled_list)

    @field_validator("batch_size", mode="before")
    @classmethod
    def _auto(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "auto":
            reject(f"a number of questions, or auto, not '{value:.40}'")
        return None if value == "auto" else value

    @field_validator("models")
    @classmethod
    def _must_differ(cls, value: tuple[ModelSpec, ...]) -> tuple[ModelSpec, ...]:
        _refuse_twins(value)
        return value

    @model_validator(mode="after")
    def _labels_must_agree(self) -> Suite:
        labels = [model.label for model in self.models]
        seen: dict[tuple[str, str], PrunerSpec | Benchmark] = {}
        for m, matrix in enumerate(self.matrix):
            for i, label in enumerate(matrix.models or ()):
                if label not in labels:
                    reject(f"no model is labelled '{label}'; {did_you_mean(label, labels)}", "matrix", m, "models", i)
            rows: Mapping[str, Sequence[PrunerSpec | Benchmark]] = {"pruners": matrix.pruners, "benchmarks": matrix.benchmarks}
            for key, items in rows.items():
                for i, item in enumerate(items):
                    if seen.setdefault((key, item.label), item) != item:
                        reject(f"label '{item.label}' stands for something else in an earlier matrix", "matrix", m, key, i)
        return self

    @property
    def questions_together(self) -> int:
        """Batch size; a processor's where none is given and no GPU gave one."""
        return self.batch_size or BATCH_SIZE_OF_A_PROCESSOR

    def model_post_init(self, context: Any) -> None:
        """Keep the document, so that later errors can name a line, too."""
        self._document = (context or {}).get("document")

    def where(self, *path: Key) -> str:
        """Place of a key in the file, `file:line`."""
        return self._document.where(*path) if self._document else self.name

    def with_dtype(self, dtype: Dtype) -> Suite:
        """Force one number format on every model."""
        models = tuple(model.model_copy(update={"dtype": dtype}) for model in self.models)
        return self.model_copy(update={"dtype": dtype, "models": models})

    def without_own_limits(self) -> Suite:
        """Hold every benchmark to the suite's limit."""
        return self.model_copy(update={"matrix": tuple(matrix.without_own_limits() for matrix in self.matrix)})

    @property
    def benchmarks(self) -> dict[str, Benchmark]:
        """All benchmarks of the suite by label."""
        return {each.label: each.under(self.profile) for matrix in self.matrix for each in matrix.benchmarks}


def load(path: str | Path, overrides: Sequence[str] = (), options: Mapping[str, object] = MappingProxyType({})) -> Suite:
    """Read and check a suite: a file, or the name of one that comes with vtpbench.

    Parameters
    ----------
    path : file, or packaged name (`demo`, `suites/demo.yaml`)
    overrides : `key=value` settings that replace what the file says; a `limit` also those of single benchmarks
    options : keys that have an option of their own on the command line, with its value; they do the same

    Raises
    ------
    UserError : no such file, or a mistake in it; the message names file, line and key

    """
    file = find_file(path)
    document = Document(read_text(file), str(file))
    for setting in overrides:
        document.override(setting)
    for key, value in options.items():
        document.override(f"{key}={value}", f"--{key.replace('_', '-')} {value}")
    suite = document.validate(Suite, {"folder": file.parent, "name": file.stem, "document": document})
    if "limit" in {*options, *(setting.partition("=")[0].strip() for setting in overrides)}:
        suite = suite.without_own_limits()
    models = (
        model.model_copy(update={"dtype": model.dtype or suite.dtype, "attention": model.attention or suite.attention})
        for model in suite.models
    )
    return suite.model_copy(update={"models": tuple(models)})


def find_file(path: str | Path) -> Path:
    """Find a suite: a file that exists, else one of those that come with vtpbench."""
    given = Path(path)
    if os.path.isfile(given):
        return given
    packaged = packaged_suites()
    name = given.name.removesuffix(".yaml")
    if given.parts[:-1] in ((), ("suites",)) and name in packaged:
        return packaged[name]
    hint = did_you_mean(name, packaged)
    known = "" if hint.startswith("known") else f" (known: {', '.join(packaged)})"
    raise UserError(f"no suite file {path!s:.200}, and none of that name comes with vtpbench; {hint}{known}")


def packaged_suites() -> dict[str, Path]:
    """Suites that come with vtpbench, by name."""
    import vtpbench.suites

    return {file.stem: file for file in sorted(Path(str(vtpbench.suites.__file__)).parent.glob("*.yaml"))}


def _refuse_twins(items: Sequence[Any]) -> None:
    """Refuse a list with two equal labels or values."""
    seen: list[Any] = []
    for i, item in enumerate(items):
        is_budget = isinstance(item, BudgetInfo)
        name = item if is_budget else getattr(item, "label", item)  # a budget's label is rounded
        if name in seen:
            fix = "give one of them another label" if hasattr(item, "label") and not is_budget else "remove one of them"
            shown = item.label if is_budget else f"'{name}'"
            reject(f"{shown} stands twice in the list; {fix}", i)
        seen.append(name)
