"""Definitions of lmms-eval tasks, read from their YAML files without importing lmms-eval (which takes 15 seconds)."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from vtpbench.harness.host.files import read_regular, read_text
from vtpbench.harness.suite.bounded_yaml import BoundedConstructor, read_value, shortened
from vtpbench.pruners.errors import UserError, did_you_mean

_TASK_LINE = re.compile(r"""^task:[ ]*["']?([\w.-]+)["']?[ ]*(?:#.*)?$""", re.MULTILINE)


MOST_FILES = 100
"""That a task may include, each as often as it does."""


class TaskConstructor(BoundedConstructor):
    """Keeps lmms-eval's `!function module.name` as text."""


TaskConstructor.add_constructor("!function", lambda loader, node: f"!function {node.value}")


class TaskMetric(BaseModel):
    """What vtpbench reads of one of a task's metrics."""

    metric: str


class TaskGeneration(BaseModel):
    """What vtpbench reads of a task's generation arguments."""

    until: str | list[str] | None = None
    max_new_tokens: Annotated[int, Field(ge=0, le=2**31)] | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    num_beams: int | None = None


class TaskDefinition(BaseModel):
    """What vtpbench reads of a task's YAML, of which nothing may be of another type."""

    task: str | None = None
    dataset_path: str | None = None
    dataset_name: str | None = None
    dataset_kwargs: dict[str, Any] | None = None
    test_split: str | None = None
    validation_split: str | None = None
    output_type: str | None = None
    metric_list: list[TaskMetric] | None = None
    generation_kwargs: TaskGeneration | None = None


class _DataFiles(BaseModel):
    data_files: str | list[str] | dict[str, str | list[str]] | None = None


def find_task(task: str, folder: Path | None) -> Path:
    """Find the file that defines a task: in `folder`, or, without one, in the installed lmms-eval.

    Raises
    ------
    UserError : no such task, or lmms-eval is not installed

    """
    return _packaged(task) if folder is None else _find(task, folder, str(folder))


@cache
def _packaged(task: str) -> Path:
    return _find(task, _package_tasks(), "lmms-eval")


def _find(task: str, root: Path, place: str) -> Path:
    named = sorted(root.rglob(f"{task}.yaml"))  # most files are called as their task: this spares reading 2000 files
    for path in named:
        if task in _named_in(path):
            return path
    known = _index(root)
    if task not in known:
        raise UserError(f"no task '{task}' in {place}; {did_you_mean(task, known)}")
    return known[task]


def read_task(path: Path) -> dict[str, Any]:
    """Read a task with the files it includes; functions stay the text `!function module.name`.

    Raises
    ------
    UserError : it is no task, or includes itself or too much

    """
    return _read(path, (), iter(range(MOST_FILES)))


def _read(path: Path, including: tuple[Path, ...], left: Iterator[int]) -> dict[str, Any]:
    """Read one file of a task; `including` lead here, `left` runs out with the files that may still be read."""
    if path in including:
        raise UserError(f"{including[0]}: includes {path}, which includes itself")
    if next(left, None) is None:
        raise UserError(f"{including[0]}: includes more than {MOST_FILES} files")
    own = deepcopy(_parsed(read_text(path), str(path)))
    if not isinstance(own, dict) or not all(isinstance(key, str) for key in own):
        raise UserError(f"{path}: an lmms-eval task is a mapping of names")
    include = own.pop("include", None) or []
    names = [include] if isinstance(include, str) else include
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: `include` names files")
    merged: dict[str, Any] = {}
    for name in reversed(names):  # lmms-eval's order: the first one wins
        merged.update(_read(Path(os.path.normpath(path.parent / name)), (*including, path), left))
    return {**merged, **own}


@lru_cache(maxsize=512)
def _parsed(text: str, name: str) -> Any:
    """Parse a file's text, once: a plan asks for a task several times, and PyYAML takes its time."""
    return read_value(text, name, TaskConstructor)


def check_definition(definition: Mapping[str, Any], name: str) -> None:
    """Refuse a task, overrides included, in which something that vtpbench reads is of another type.

    Raises
    ------
    UserError : it begins with `name`

    """
    try:
        found = TaskDefinition.model_validate(definition)
        _DataFiles.model_validate(found.dataset_kwargs or {})
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{name}: {where}: {first['msg'][0].lower()}{first['msg'][1:]}, not {shortened(first['input'])}") from e


@cache
def _package_tasks() -> Path:
    spec = importlib.util.find_spec("lmms_eval")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("lmms-eval is not installed; run: pip install 'lmms-eval>=0.7.3'")
    return Path(spec.submodule_search_locations[0]) / "tasks"


@cache
def _index(root: Path) -> dict[str, Path]:
    """All tasks below a folder by name."""
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*.yaml")):
        for task in _named_in(path):
            found.setdefault(task, path)
    return found


def _named_in(path: Path) -> list[str]:
    """Find the tasks that a file defines, none where it cannot be read."""
    return _TASK_LINE.findall((read_regular(path) or b"").decode(errors="replace"))
