"""Definitions of lmms-eval tasks, read from their YAML files without importing lmms-eval (which takes 15 seconds)."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from vtpbench.pruners.errors import UserError, did_you_mean

_TASK_LINE = re.compile(r"""^task:[ ]*["']?([\w.-]+)["']?[ ]*(?:#.*)?$""", re.MULTILINE)


class _Loader(yaml.SafeLoader):
    """Safe loader that keeps lmms-eval's `!function module.name` as text."""


_Loader.add_constructor("!function", lambda loader, node: f"!function {node.value}")


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
        if task in _TASK_LINE.findall(path.read_text(encoding="utf-8")):
            return path
    known = _index(root)
    if task not in known:
        raise UserError(f"no task '{task}' in {place}; {did_you_mean(task, known)}")
    return known[task]


def read_task(path: Path) -> dict[str, Any]:
    """Read a task with the files it includes; functions stay the text `!function module.name`."""
    try:
        own = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, yaml.YAMLError) as e:
        raise UserError(f"{path}: cannot be read as an lmms-eval task: {e}") from e
    if not isinstance(own, dict):
        raise UserError(f"{path}: an lmms-eval task is a mapping")
    include = own.pop("include", [])
    merged: dict[str, Any] = {}
    for name in reversed([include] if isinstance(include, str) else include):  # lmms-eval's order: the first one wins
        merged.update(read_task(path.parent / name))
    return {**merged, **own}


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
        for task in _TASK_LINE.findall(path.read_text(encoding="utf-8", errors="replace")):
            found.setdefault(task, path)
    return found
