"""What a task's code keeps from one cell must not reach the next: its modules are imported anew and forgotten again."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

TASKS = "lmms_eval.tasks."
"""Before the names of the modules of lmms-eval's tasks, and of what they share."""
INSTALLED = {"site-packages", "dist-packages"}
"""Folders of installed packages, on any system."""


@contextmanager
def fresh_modules(folder: Path) -> Iterator[None]:
    """Let the code of the task in a folder find none of its modules imported, and leave none of them behind.

    Its modules are those of lmms-eval's tasks, and what it is the first to import from its folder, from places that it puts on
    `sys.path`, or from anywhere but installed packages. A module that the task's YAML names, such as `utils` of
    `!function utils.score`, is executed anew by lmms-eval whenever it loads the task.
    """
    path, before = list(sys.path), set(sys.modules)
    shared = {name: sys.modules[name] for name in before if name.startswith(TASKS)}
    _forget(shared)
    try:
        yield
    finally:
        places = [Path(place) for place in sys.path if place not in path]
        new = [name for name in list(sys.modules) if name not in before or name in shared]
        roots = {name.partition(".")[0] for name in before} if new else set[str]()
        _forget(name for name in new if _is_of_task(name, sys.modules[name], folder, places, roots))
        sys.path[:] = path
        for name, module in shared.items():
            _remember(name, module)


def _is_of_task(name: str, module: ModuleType, folder: Path, places: Iterable[Path], roots: set[str]) -> bool:
    """Whether a module is a task's own: see `fresh_modules`; `roots` are packages that somebody else imported before."""
    if name.startswith(TASKS):
        return True
    file = getattr(module, "__file__", None)
    if file is None:
        return False
    if _lies_in(Path(file), folder):
        return True
    is_strange = name.partition(".")[0] not in roots or any(_lies_in(Path(file), place) for place in places)
    return is_strange and not _is_installed(Path(file))


def _lies_in(file: Path, folder: Path) -> bool:
    """Whether a file is in a folder, and not in packages that are installed there."""
    place, root = file.resolve(), folder.resolve()
    return place.is_relative_to(root) and not INSTALLED & set(place.relative_to(root).parts)


def _is_installed(file: Path) -> bool:
    """Whether a module's file comes with Python or an installed package."""
    standard = [sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib")]
    return bool(INSTALLED & set(file.parts)) or any(file.is_relative_to(folder) for folder in standard)


def _forget(names: Iterable[str]) -> None:
    """Make the next import of modules execute them, also one that asks their package for them."""
    for name in list(names):
        module = sys.modules.pop(name)
        package, _, own = name.rpartition(".")
        inside = vars(sys.modules[package]) if package in sys.modules else {}
        if inside.get(own) is module:
            del inside[own]


def _remember(name: str, module: ModuleType) -> None:
    """Let a module be imported as it was."""
    sys.modules[name] = module
    package, _, own = name.rpartition(".")
    if package in sys.modules:
        vars(sys.modules[package])[own] = module
